"""The ``c`` lowering: fused C for float32 on the CPU, built once per graph for all shapes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.kernels.codegen._compile import find_compiler
from layersearch.kernels.codegen.c_kernel import CKernel, build_seconds
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering.base import LOWERINGS, Lowering, say_once
from layersearch.primitives.lowering.fused import BACKWARD, FORWARD, HALF, Fusion
from layersearch.primitives.lowering.program import lower
from layersearch.primitives.lowering.torch_source import build_torch_layer

__all__ = ["why_unavailable"]


def _run(
    kernel: Any,
    name: str,
    layout: str,
    groups: int,
    x: Tensor,
    g: Tensor | None,
    inputs: Sequence[Tensor],
    given: Tensor | None,
    out: Tensor,
    results: Tensor,
) -> None:
    n, channels, height, width = x.shape
    work = torch.empty(kernel.workspace(name, n, channels))
    kernel.run(
        name,
        layout,
        (n, channels, height * width, groups),
        [t.data_ptr() for t in inputs],
        x=x.data_ptr(),
        g=0 if g is None else g.data_ptr(),
        given=0 if given is None else given.data_ptr(),
        out=out.data_ptr(),
        results=results.data_ptr(),
        work=work.data_ptr(),
    )


def _covered(input: Tensor, inputs: Sequence[Tensor]) -> Tensor | None:
    x = input.float() if input.dtype in HALF else input
    held = all(t.dtype is torch.float32 and t.device.type == "cpu" for t in inputs)
    return x if _is_covered(x) and held else None


def _is_covered(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.device.type == "cpu" and x.dim() == 4 and x.numel() > 0


_FUSION = Fusion("c", CKernel, _run, _covered, pixels="nhwc")


def why_unavailable() -> str | None:
    """Why kernels cannot be built on this machine, or None."""
    compiler = find_compiler()
    return compiler if isinstance(compiler, str) else None


def _build(graph: Graph, num_features: int, groups: int) -> nn.Module:
    """The layer, its training kernel built. Without a compiler: the ``torch`` lowering, said once."""
    reason = why_unavailable()
    if reason is not None:
        say_once(reason)
        return build_torch_layer(graph, num_features, groups)
    return _FUSION.build(graph, num_features, groups)


def _build_seconds(graph: Graph) -> float:
    program = lower(graph, training=True)
    return build_seconds({FORWARD: program.forward, BACKWARD: program.backward})


LOWERINGS.add("c", Lowering("c", _build, why_unavailable, devices=("cpu",), build_seconds=_build_seconds))

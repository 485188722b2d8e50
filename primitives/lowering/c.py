"""The ``c`` lowering: fused C for float32 on the CPU, built once per graph for all shapes."""

from collections.abc import Sequence

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


def _covered(input: Tensor, held: Sequence[Tensor], per_channel: Sequence[bool]) -> Tensor | None:
    if not input.is_cpu or input.dim() != 4 or input.numel() == 0:
        return None
    channels = input.shape[1]
    for t, over_channels in zip(held, per_channel, strict=True):  # a kernel reads and writes past the end of less
        if t.dtype is not torch.float32 or not t.is_cpu or t.numel() != (channels if over_channels else 1):
            return None
    if input.dtype in HALF:
        return input.float()
    return input if input.dtype is torch.float32 else None


_FUSION = Fusion("c", CKernel, _covered, pixels="nhwc")


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

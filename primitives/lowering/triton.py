"""The ``triton`` lowering: fused Triton for CUDA, in float32, bfloat16 or float16, computed in float32.

Half-precision inputs are read and written as they are, without a copy. Where ``TRITON_INTERPRET=1`` is set, the same
kernels are interpreted on the CPU: slow, and meant for tests.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layersearch.kernels.codegen._triton_load import interprets, why_no_triton
from layersearch.kernels.codegen.triton_ahead import build_seconds
from layersearch.kernels.codegen.triton_kernel import TritonKernel
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering.base import LOWERINGS, Lowering, say_once
from layersearch.primitives.lowering.fused import BACKWARD, FORWARD, HALF, Fusion
from layersearch.primitives.lowering.program import lower
from layersearch.primitives.lowering.torch_source import build_torch_layer

__all__ = ["why_unavailable"]

_DTYPES = (torch.float32, *HALF)
_DEVICE = "cpu" if interprets() else "cuda"


def _covered(input: Tensor, held: Sequence[Tensor], per_channel: Sequence[bool]) -> Tensor | None:
    if not _is_covered(input) or not all(t.dtype in _DTYPES and t.device == input.device for t in held):
        return None
    sizes = [input.shape[1] if over_channels else 1 for over_channels in per_channel]
    return input if [t.numel() for t in held] == sizes else None  # kernels would read past the end of less


def _is_covered(x: Tensor) -> bool:
    return x.dtype in _DTYPES and x.device.type == _DEVICE and x.dim() == 4 and x.numel() > 0


_FUSION = Fusion("triton", TritonKernel, _covered, pixels="nchw")


def why_unavailable() -> str | None:
    """Why kernels cannot be run on this machine, or None."""
    reason = why_no_triton()
    if reason is None and not (interprets() or torch.cuda.is_available()):
        return "torch finds no CUDA device; kernels for it can only be compiled here"
    return reason


def _build(graph: Graph, num_features: int, groups: int) -> nn.Module:
    """The layer, its kernels generated. Without a device: the ``torch`` lowering, said once."""
    reason = why_unavailable()
    if reason is not None:
        say_once(reason)
        return build_torch_layer(graph, num_features, groups)
    return _FUSION.build(graph, num_features, groups)


def _build_seconds(graph: Graph) -> float:
    """For the current device. 0 where kernels are interpreted: there is nothing to compile."""
    if interprets():
        return 0.0
    major, minor = torch.cuda.get_device_capability()
    program = lower(graph, training=True)
    return build_seconds({FORWARD: program.forward, BACKWARD: program.backward}, 10 * major + minor)


LOWERINGS.add("triton", Lowering("triton", _build, why_unavailable, devices=("cuda",), build_seconds=_build_seconds))

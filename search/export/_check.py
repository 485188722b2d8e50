"""Compares what a written file computes with the oracle, the reference lowering."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import build_layer
from layersearch.search.export.base import ExportError

__all__ = ["batch", "compare", "oracle", "randomize"]

_SHAKES = 4
_AMPLIFICATION = 100.0


def oracle(graph: Graph, num_features: int, groups: int | None = None) -> nn.Module:
    """The reference lowering in float64."""
    return build_layer(graph, num_features, lowering="reference", groups=groups).double()


def randomize(layer: nn.Module, seed: int) -> None:
    """Random parameters and buffers in [0.25, 1.25]: at initial values terms such as v0·x would vanish."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.25)


def batch(shape: Sequence[int], seed: int) -> Tensor:
    """A float64 batch whose values are float32 numbers, so that every dtype sees the same input."""
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.3).double()


def compare(got: Callable[[Tensor], Tensor], expected: Callable[[Tensor], Tensor], x: Tensor, what: str) -> float:
    """Largest difference of two functions at ``x``, relative to 1 + size of the value, where the second is finite.

    A value may differ by 30 ``eps`` of the dtype of ``got`` times (1 + its size), and beyond that by as much as it
    moves when the input moves by 100 ``eps``: near a pole no arithmetic does better.

    Raises: ExportError where they differ by more, or where nothing can be compared.
    """
    with torch.no_grad():
        y, reference = got(x).detach(), expected(x)
        eps = float(torch.finfo(y.dtype).eps)
        moved = torch.zeros_like(reference)
        for seed in range(_SHAKES):
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
            shaken = expected(x * (1 + eps * noise))
            moved = torch.maximum(moved, (shaken - reference).abs())
    if y.shape != reference.shape:
        raise ExportError(f"{what} gives shape {tuple(y.shape)} instead of {tuple(reference.shape)}; report this")
    finite = torch.isfinite(reference) & torch.isfinite(moved)
    if not bool(finite.any()):
        raise ExportError(f"{what} cannot be checked: the layer gives no finite value on a standard batch; add guards")
    difference = (y.double() - reference).abs()
    scale = 1 + reference.abs()
    allowed = 30 * eps * scale + _AMPLIFICATION * moved
    wrong = finite & ~(difference <= allowed)
    worst = float((difference / scale)[finite].max())
    if bool(wrong.any()):
        raise ExportError(
            f"{what} must equal the reference, but {int(wrong.sum())} of {wrong.numel()} values differ, "
            f"by up to {float(difference[wrong].max()):.3g}; nothing was written, report this with the genome"
        )
    return worst

"""A layer by several lowerings with the same numbers, and how far apart they are."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import build_layer

__all__ = ["Truth", "batch", "error", "limit", "oracle_of", "results", "truth", "upstream", "with_state_of"]

FLOAT32, HALF = torch.float32, (torch.float16, torch.bfloat16)


class Truth(NamedTuple):
    """What the float64 oracle gives, and the error of eager float32: the oracle's code, node by node, in float32.

    The error is the worst over three problems 0.1 % apart: the roundings of a single one may cancel.
    """

    value: Tensor
    eager: float


def batch(shape: tuple[int, ...] = (3, 8, 5, 3), seed: int = 7) -> Tensor:
    """Float64 numbers that float32 holds exactly."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5 + 0.3
    return x.float().double()


def upstream(shape: tuple[int, ...]) -> Tensor:
    """A random gradient that arrives at the output: float64 numbers that bfloat16 holds exactly."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).bfloat16().double()


def oracle_of(graph: Graph, channels: int, groups: int = 4, scale: float = 1.0) -> nn.Module:
    """The float64 oracle with random parameters and buffers that float32 holds exactly."""
    oracle = build_layer(graph, channels, lowering="reference", groups=groups).double()
    generator = torch.Generator().manual_seed(5)
    for tensor in (*oracle.parameters(), *oracle.buffers()):
        values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.25
        tensor.data.copy_((values * scale).float().double())
    return oracle


def with_state_of(layer: nn.Module, oracle: nn.Module) -> nn.Module:
    layer.load_state_dict(oracle.state_dict())
    return layer.train(oracle.training)


def results(layer: nn.Module, x: Tensor, g: Tensor | None = None) -> dict[str, Tensor]:
    """Output ``y``, gradients of ``x`` and of every parameter by name, and running moments after the step.

    ``g``: gradient that arrives at the output, by default ``upstream`` in the layout of the output.
    """
    x = x.detach().requires_grad_(True)
    y = layer(x)
    named = {"x": x, **dict(layer.named_parameters())}
    arriving = torch.empty_like(y).copy_(upstream(y.shape)) if g is None else g
    grads = torch.autograd.grad(y, list(named.values()), arriving, allow_unused=True)
    return {
        "y": y.detach(),
        **{n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(named.items(), grads, strict=True)},
        **{n: b.clone() for n, b in layer.named_buffers()},
    }


@functools.cache
def truth(
    graph: Graph, shape: tuple[int, ...], training: bool = True, held_in: torch.dtype = FLOAT32
) -> dict[str, Truth]:
    """``results`` of a step on ``batch(shape)``, which a tensor of dtype ``held_in`` has rounded."""
    found: dict[str, Truth] = {}
    for scale in (1.002, 1.001, 1.0):
        oracle = oracle_of(graph, shape[1], scale=scale).train(training)
        eager = with_state_of(build_layer(graph, shape[1], lowering="reference", groups=4), oracle)
        x = (batch(shape) * scale).to(held_in).double()
        expected, naive = results(oracle, x), results(eager, x.float())
        found = {
            key: Truth(value, max(error(naive[key], value), found[key].eager if found else 0.0))
            for key, value in expected.items()
        }
    return found


def error(got: Tensor, expected: Tensor, floor: float = 1e-6) -> float:
    """Distance relative to the norm of ``expected``, or that of the worst element to the greatest: the larger one."""
    missed = got.double().cpu() - expected
    both = (missed.norm() / (expected.norm() + floor), missed.abs().max() / (expected.abs().max() + floor))
    return float(torch.stack(both).max())


def limit(eager: float, dtype: torch.dtype) -> float:
    """The largest error of a result that is held in ``dtype``: 10 × that of eager float32, or 16 units of rounding.

    float64 is asked for as much, in its own units; what is held in half precision is computed in float32 and rounded.
    Nothing is asked where eager float32 overflows.
    """
    if not math.isfinite(eager):
        return math.inf
    unit, eager_unit = torch.finfo(FLOAT32 if dtype in HALF else dtype).eps, torch.finfo(FLOAT32).eps
    rounding = torch.finfo(dtype).eps if dtype in HALF else 0.0
    return max(10 * eager * unit / eager_unit, 16 * unit) + rounding

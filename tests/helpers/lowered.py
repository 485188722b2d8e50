"""A layer by two lowerings with the same numbers, and how far apart they are."""

import torch
from torch import Tensor, nn

from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import build_layer

__all__ = ["batch", "error", "float32_errors", "oracle_of", "results", "with_state_of"]


def batch(shape: tuple[int, ...] = (3, 8, 5, 3), seed: int = 7) -> Tensor:
    """Float64 numbers that float32 holds exactly."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5 + 0.3
    return x.float().double()


def oracle_of(graph: Graph, channels: int, groups: int = 4) -> nn.Module:
    """The float64 oracle with random parameters and buffers that float32 holds exactly."""
    oracle = build_layer(graph, channels, lowering="reference", groups=groups).double()
    generator = torch.Generator().manual_seed(5)
    for tensor in (*oracle.parameters(), *oracle.buffers()):
        values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.25
        tensor.data.copy_(values.float().double())
    return oracle


def with_state_of(layer: nn.Module, oracle: nn.Module) -> nn.Module:
    layer.load_state_dict(oracle.state_dict())
    return layer.train(oracle.training)


def results(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, and the gradients of x and of every parameter under a random upstream gradient."""
    x = x.detach().requires_grad_(True)
    y = layer(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).float()
    named = {"x": x, **dict(layer.named_parameters())}
    grads = torch.autograd.grad(y, list(named.values()), upstream.to(y), allow_unused=True)
    return {
        "y": y.detach(),
        **{n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(named.items(), grads, strict=True)},
    }


def error(got: Tensor, expected: Tensor) -> float:
    """Distance relative to the norm of ``expected``."""
    return float((got.double() - expected).norm() / (expected.norm() + 1e-6))


def float32_errors(
    layer: nn.Module, oracle: nn.Module, graph: Graph, x: Tensor, groups: int = 4
) -> dict[str, tuple[float, float]] | None:
    """Errors of ``layer`` and of the node-by-node form in float32 by result; None where the oracle is not finite."""
    expected = results(oracle, x)
    if not all(bool(torch.isfinite(v).all()) and float(v.abs().max()) < 1e10 for v in expected.values()):
        return None
    eager = with_state_of(build_layer(graph, x.shape[1], lowering="reference", groups=groups), oracle)
    got, naive = results(with_state_of(layer, oracle), x.float()), results(eager, x.float())
    return {key: (error(got[key], value), error(naive[key], value)) for key, value in expected.items()}

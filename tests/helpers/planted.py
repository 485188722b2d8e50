"""KAN layers whose edges are known functions, and a network that was trained on a known formula."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from layersearch.primitives import KANLinear

__all__ = ["planted_layer", "trained_network"]


def planted_layer(
    in_features: int, out_features: int, edges: Mapping[tuple[int, int], Callable[[Tensor], Tensor]]
) -> KANLinear:
    """A Chebyshev layer of degree 32 on [-1, 1] with the edges (output, input) as given and all others 0."""
    layer = KANLinear(in_features, out_features, "chebyshev", degree=32, base=None, domain="none", dtype=torch.float64)
    x = torch.cos(torch.linspace(0, math.pi, 400, dtype=torch.float64))
    columns = layer.functions.columns(x.unsqueeze(1).expand(-1, in_features))[:, :, 0]
    with torch.no_grad():
        layer.weight.zero_()
        for (o, i), function in edges.items():
            layer.weight[o, :, i] = torch.linalg.lstsq(columns, function(x).unsqueeze(1)).solution[:, 0]
    return layer


def trained_network() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A 2-2-1 network of cubic B-splines trained on exp(sin(pi x) + y²), with its inputs and targets."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1200, 2, generator=generator).double() * 2 - 1
    y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
    first, second = (
        KANLinear(i, o, "bspline", grid=5, domain="none", generator=generator, dtype=torch.float64)
        for i, o in ((2, 2), (2, 1))
    )
    network = nn.Sequential(first, second)
    first.update_grid(x)
    for _ in range(3):
        second.update_grid(first(x).detach())
        optimizer = torch.optim.LBFGS(
            network.parameters(), max_iter=100, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure(optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = (network(x) - y).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)
    return network, x, y

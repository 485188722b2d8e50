"""The stability test on small networks: exact where the answer is known."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layersearch.spaces.evonorm.stability import largest_gradient_norm


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.Flatten(), nn.Linear(8 * 4 * 4, 10))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 6, 6, generator=generator), torch.randint(10, (8,), generator=generator)


def test_without_steps_it_is_the_gradient_norm() -> None:
    model, (x, y) = network(nn.ReLU()), batch()
    loss = F.cross_entropy(model(x), y)
    expected = math.sqrt(sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(model.parameters()))))
    found = largest_gradient_norm(model, x, y, steps=0, rate=0.01, limit=1e8)
    assert found.norm == pytest.approx(expected, rel=1e-5)
    assert found.step == 0


def test_ascent_raises_the_norm() -> None:
    model, (x, y) = network(nn.ReLU()), batch()
    start = largest_gradient_norm(network(nn.ReLU()), x, y, steps=0, rate=0.01, limit=1e8).norm
    assert largest_gradient_norm(model, x, y, steps=20, rate=0.01, limit=1e8).norm > 1.2 * start


def test_an_explosion_stops_the_ascent() -> None:
    class Cube(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**3

    x, y = batch()
    found = largest_gradient_norm(network(Cube(), Cube()), x, y, steps=100, rate=1.0, limit=1e8)
    assert found.norm > 1e8
    assert found.step < 100


def test_a_deadline_in_the_past_gives_up() -> None:
    x, y = batch()
    assert largest_gradient_norm(network(nn.ReLU()), x, y, steps=100, rate=0.01, limit=1e8, deadline=0.0).timed_out

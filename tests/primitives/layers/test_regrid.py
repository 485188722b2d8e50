"""Moving and refining a grid keeps what the layer computes."""

from typing import Any

import pytest
import torch

from layersearch.errors import BadInputError
from layersearch.primitives import BASES, KANLinear

GRIDDED = [name for name in BASES if BASES[name].has_grid]


def data(count: int = 300) -> torch.Tensor:
    return 2 * torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("settings", [{}, {"order": 1}, {"order": 2, "grid": 3}, {"uniform": False}], ids=str)
def test_a_finer_spline_grid_that_holds_the_coarser_one_loses_nothing(settings: dict[str, float]) -> None:
    layer = KANLinear(3, 4, basis="bspline", domain="none", dtype=torch.float64, **settings)
    x = data()
    with torch.no_grad():
        before = layer(x)
        grid = layer.basis.grid  # type: ignore[attr-defined]
        change = layer.extend_grid(3 * grid)
        assert change < 1e-8
        torch.testing.assert_close(layer(x), before, rtol=1e-7, atol=1e-7)
        assert layer.basis.grid == 3 * grid  # type: ignore[attr-defined]
    layer(x).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize(("name", "limit"), [("bspline", 1e-2), ("relu", 3e-2), ("rbf", 3e-2), ("rswaf", 3e-2)])
def test_a_moved_grid_keeps_smooth_functions(name: str, limit: float) -> None:
    layer = KANLinear(3, 4, basis=name, domain="none", grid=10, dtype=torch.float64, init="power", power=(0.25, 1.0))
    x = 0.8 * data() + 0.1
    with torch.no_grad():
        # a smooth function first: that of a straight line plus a bend, fitted through the basis itself
        layer.weight.copy_(layer.weight.cumsum(1).cumsum(1) / 10)
        before = layer(x)
        change = layer.update_grid(x)
        assert change < limit
        assert float((layer(x) - before).square().mean().sqrt() / before.std()) < limit
        low, high = layer.basis.span(layer.functions.state)
    assert bool((low <= x.amin(0) + 1e-9).all())
    assert bool((high >= x.amax(0) - 1e-9).all())
    assert float((high - low).max()) < 1.7


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), -0.5, 1e30, "0.1", None])
def test_a_margin_that_is_none_changes_nothing(margin: Any) -> None:
    layer = KANLinear(3, 4, basis="bspline")
    x = data().float()
    before = layer(x)
    with pytest.raises(BadInputError, match=r"margin must be a number in \[0, 10\], got"):
        layer.update_grid(x, margin)
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("name", GRIDDED)
def test_an_updated_layer_goes_on_and_the_same_update_changes_nothing(name: str) -> None:
    layer = KANLinear(3, 4, basis=name, dtype=torch.float64)
    x = data()
    layer.update_grid(x)
    with torch.no_grad():
        before = layer(x)
        assert layer.update_grid(x) < 1e-6
        torch.testing.assert_close(layer(x), before, rtol=1e-5, atol=1e-5)
    copy = KANLinear(3, 4, basis=name, dtype=torch.float64)
    copy.load_state_dict(layer.state_dict())
    assert torch.equal(copy(x), layer(x))


def test_the_parameters_stay_the_same_objects_when_their_shape_does() -> None:
    layer = KANLinear(3, 4, basis="bspline")
    weight = layer.weight
    layer.update_grid(data().float())
    assert layer.weight is weight
    layer.extend_grid(9)
    assert layer.weight.shape == (4, 12, 3)
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["relu", "rbf", "rswaf"])
def test_trained_grids_stay_with_their_optimiser_when_they_move(name: str) -> None:
    layer = KANLinear(3, 4, basis=name, learn=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    before = dict(layer.named_parameters())
    assert len(before) == 5
    x = data().float()
    layer.update_grid(x)
    assert all(p is before[name] for name, p in layer.named_parameters())
    moved = {name: p.detach().clone() for name, p in before.items()}
    layer(x).square().mean().backward()
    optimizer.step()
    assert not any(torch.equal(p, moved[name]) for name, p in layer.named_parameters())


def test_what_is_frozen_stays_so_on_another_grid() -> None:
    layer = KANLinear(3, 4, basis="relu")
    frozen = {"weight", "functions.start"}
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name not in frozen)
    layer.extend_grid(9)
    assert layer.weight.shape[1] == layer.functions.state["start"].shape[0] == layer.basis.n_functions
    assert {name for name, parameter in layer.named_parameters() if not parameter.requires_grad} == frozen


def test_a_constant_input_or_few_samples_do_no_harm() -> None:
    for x in (torch.zeros(1, 3), torch.full((5, 3), 2.0)):
        layer = KANLinear(3, 4, basis="bspline", domain="none")
        layer.update_grid(x)
        assert bool(layer(x).isfinite().all())


def test_what_has_no_grid_says_so() -> None:
    for name in ("chebyshev", "morlet"):
        with pytest.raises(BadInputError, match=f"basis '{name}' has no grid to move or refine"):
            KANLinear(3, 4, basis=name).extend_grid(9)
    with pytest.raises(BadInputError, match="update_grid needs finite data"):
        KANLinear(3, 4, basis="bspline").update_grid(torch.full((2, 3), float("nan")))
    with pytest.raises(BadInputError, match=r"grid of basis 'bspline' must be a whole number in \[1, 512\], got 0"):
        KANLinear(3, 4, basis="bspline").extend_grid(0)

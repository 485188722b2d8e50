"""KANLinear is the sum over its edges; its domain maps, base branch and errors."""

import functools
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layersearch.errors import BadInputError, UnknownNameError
from layersearch.primitives import (
    BASES,
    BasisFunctions,
    GRKANLinear,
    KANLinear,
    SelectiveKANLinear,
)
from layersearch.primitives.layers.domain_map import DOMAINS, DomainMap

NAMES = list(BASES)


@pytest.mark.parametrize("name", NAMES)
def test_the_layer_is_the_sum_over_its_edges(name: str) -> None:
    layer = KANLinear(3, 2, basis=name, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.copy_(torch.tensor([0.5, -1.0]))
        got = layer(x)
        features = layer.functions.basis.evaluate(layer.functions.domain(x), layer.functions.state)
        assert layer.base_weight is not None
        for o in range(2):
            total = layer.bias[o].expand(2, 5).clone()
            for i in range(3):
                total += layer.base_weight[o, i] * F.silu(x[..., i])
                for k in range(layer.basis.n_functions):
                    total += layer.weight[o, k, i] * features[..., i, k]
            torch.testing.assert_close(got[..., o], total)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_moves_every_parameter_and_keeps_dtype(name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        layer = KANLinear(6, 4, basis=name, dtype=dtype)
        x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
        y = layer(x)
        assert y.dtype == dtype
        (y * torch.linspace(-1, 1, 4).to(dtype)).square().sum().backward()
        for parameter in layer.parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.isfinite().all())
            assert float(parameter.grad.abs().max()) > 0


def test_a_layer_survives_its_state_dict_and_a_seed_decides_its_start() -> None:
    first, second, third = (
        KANLinear(5, 3, basis="jacobi", generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    x = torch.linspace(-2, 2, 10).view(2, 5)
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), third(x))
    third.load_state_dict(first.state_dict())
    assert torch.equal(first(x), third(x))


def test_without_base_or_bias_nothing_but_the_basis_is_left() -> None:
    layer = KANLinear(3, 2, basis="fourier", base=None, bias=False, grid=2)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    with torch.no_grad():
        layer.weight.zero_()
    assert not layer(torch.ones(1, 3)).any()


def test_domain_maps_reach_the_interval() -> None:
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    for kind in DOMAINS:
        mapped = DomainMap(kind, (-0.5, 1.5), 4).double()(x)
        if kind == "none":
            assert torch.equal(mapped, x)
        elif kind == "softplus":
            torch.testing.assert_close(mapped, -0.5 + torch.log1p(x.exp()))
        elif kind == "layernorm":
            torch.testing.assert_close(mapped.mean(-1), torch.full((400,), 0.5, dtype=torch.float64))
            torch.testing.assert_close(
                mapped.std(-1, correction=0), torch.full((400,), 0.5).double(), rtol=1e-3, atol=0
            )
        else:
            assert float(mapped.min()) >= -0.5
            assert float(mapped.max()) <= 1.5
            assert float(mapped.max() - mapped.min()) > 1.9
    near = torch.tensor([[0.5, 0.5001]], dtype=torch.float64)
    slope = DomainMap("tanh", (-0.5, 1.5), 2)(near).diff() / near.diff()
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=1e-4, atol=0)


def test_minmax_does_not_let_a_sample_see_its_neighbours_in_evaluation() -> None:
    functions = BasisFunctions("legendre", 2, "minmax")
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    functions(data)
    torch.testing.assert_close(functions.domain.low, data.amin(0))
    functions.eval()
    alone = functions(data[:1])
    assert torch.equal(functions(torch.cat([data[:1], 100 * data]))[:1], alone)
    assert "domain.low" in functions.state_dict()


def test_bad_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(UnknownNameError, match="unknown basis 'chebishev'; did you mean 'chebyshev'"):
        KANLinear(3, 2, basis="chebishev")
    with pytest.raises(UnknownNameError, match="unknown setting of basis 'fourier' 'degree'"):
        KANLinear(3, 2, basis="fourier", degree=3)
    with pytest.raises(BadInputError, match=r"degree of basis 'taylor' must be a whole number in \[1, 32\], got 99"):
        KANLinear(3, 2, basis="taylor", degree=99)
    with pytest.raises(BadInputError, match="the grid of basis 'bspline' must increase, got low=1, high=-1"):
        KANLinear(3, 2, basis="bspline", low=1.0, high=-1.0)
    with pytest.raises(BadInputError, match="out_features must be a whole number of at least 1, got 0"):
        KANLinear(3, 0)
    with pytest.raises(BadInputError, match="layernorm of 1 feature"):
        KANLinear(1, 2, basis="rbf", domain="layernorm")
    with pytest.raises(BadInputError, match="groups of basis 'rational' must divide the number of inputs, got 2 for 3"):
        KANLinear(3, 2, basis="rational", groups=2)
    with pytest.raises(UnknownNameError, match="unknown activation 'sillu'; did you mean 'silu'"):
        KANLinear(3, 2, base="sillu")
    with pytest.raises(UnknownNameError, match="unknown domain map 'tan'"):
        KANLinear(3, 2, domain="tan")
    with pytest.raises(UnknownNameError, match="unknown init 'xavier'"):
        KANLinear(3, 2, init="xavier")


@pytest.mark.slow
def test_the_package_offers_its_names_without_loading_torch() -> None:
    code = (
        "import sys, layersearch.primitives as p; assert 'torch' not in sys.modules;"
        "print([n for n in p.__all__ if getattr(p, n) is None], sorted(p._LAZY) == sorted(p.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


WITHOUT_NUMBERS: dict[str, Callable[..., nn.Module]] = {
    **{name: functools.partial(KANLinear, 16, 8, name) for name in BASES},
    "rational layer": functools.partial(GRKANLinear, 16, 8),
    "minmax": functools.partial(KANLinear, 16, 8, "rbf", domain="minmax"),
    "selective": functools.partial(SelectiveKANLinear, 16, 8, ("bspline", "rbf")),
}


@pytest.mark.parametrize("name", WITHOUT_NUMBERS)
def test_layers_are_built_without_numbers_and_take_those_of_another(name: str) -> None:
    make = WITHOUT_NUMBERS[name]
    whole, x = make(), torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    with torch.device("meta"):
        by_default = make()
    for layer in (by_default, make(device="meta")):
        assert all(t.is_meta for t in (*layer.parameters(), *layer.buffers()))
        assert layer(x.to("meta")).shape == (3, 8)
        layer.to_empty(device="cpu").load_state_dict(whole.state_dict())
        assert torch.equal(layer(x), whole(x))


@pytest.mark.parametrize("name", ["bspline", "chebyshev"])
def test_a_device_that_is_named_is_taken_whatever_the_default(name: str) -> None:
    with torch.device("meta"):
        layer = KANLinear(4, 3, name, device="cpu")
    assert bool(layer(torch.ones(2, 4)).isfinite().all())

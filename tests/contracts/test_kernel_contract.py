"""What kernels written for layers promise, the grouped quotient and features of bases: parity with float64 and more.

C is run on the CPU; Triton on a GPU (marked ``gpu``) and, where ``TRITON_INTERPRET=1`` is set, by its interpreter: the
last test runs this file so, in a process of its own, since Triton reads the variable when it is imported.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from defaults import defaults, each_default
from interpreted import INTERPRETS, each_kernel_way, interpreted, once_interpreted
from lowered import error, limit
from torch import Tensor

from layersearch.kernels.features.form import Curve, Features, Profiles
from layersearch.primitives import BASES, GroupRational, KANLinear
from layersearch.primitives.bases import _polynomial
from layersearch.primitives.basis import Basis
from layersearch.primitives.layers import _features, _product, _quotient
from layersearch.primitives.layers._lowered import reason_against
from layersearch.primitives.layers.functions import BasisFunctions

CPU_SECONDS = 30
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16

pytestmark = [pytest.mark.usefixtures("poisoned_memory")]


Way = tuple[str, str]
each_way = each_kernel_way()
only_c = pytest.mark.skipif(INTERPRETS, reason="features are stored by C alone")


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Kernels leave what they do not cover to torch; here a test would pass by it and say nothing."""
    if request.node.get_closest_marker("torch_allowed") is None:
        monkeypatch.setattr(_quotient, "_plain", _refused)
        monkeypatch.setattr(BasisFunctions, "columns", _refused)
        monkeypatch.setattr(Basis, "plain_columns", _guarded(Basis.plain_columns))


def _refused(*_: object) -> Tensor:
    pytest.fail("torch does the work of a kernel")


def _guarded(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Float64 is the reference's; everything else would be a kernel's work."""

    def guarded(self: Basis, x: Tensor, state: dict[str, Tensor]) -> Tensor:
        assert x.dtype is torch.float64, "torch does the work of a kernel"
        return plain(self, x, state)

    return guarded


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Numbers that bfloat16 holds, so that all dtypes compute the same problem."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).bfloat16().float()


def results(layer: Callable[[Tensor], Tensor], named: dict[str, Tensor], x: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Output and gradients of x and of all that is named, for a random gradient that arrives."""
    held = x.detach().requires_grad_()
    y = layer(held)
    found = torch.autograd.grad(y, [held, *named.values()], g.to(y).expand_as(y))
    return {"y": y.detach(), **dict(zip(("x", *named), found, strict=True))}


def assert_near(got: dict[str, Tensor], eager: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Ten times the error of eager float32, or 16 units of rounding of the dtype that a result is held in."""
    assert got.keys() == exact.keys()
    for key, value in exact.items():
        held_in = dtype if key in ("x", "y") else FLOAT32
        allowed = limit(error(eager[key], value), held_in)
        assert error(got[key], value) <= allowed, (key, error(got[key], value), allowed)


# --- grouped quotients ---------------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "rows": ((37, 24), -1, 4),
    "one element": ((1, 1), -1, 1),
    "groups of one": ((9, 17), -1, 17),
    "sequence": ((2, 13, 40), -1, 8),
    "planes": ((2, 12, 7, 5), 1, 3),
    "long planes": ((2, 4, 24, 29), 1, 2),
    "few rows": ((3, 70), -1, 2),
    "no axis but the channels": ((12,), -1, 3),
}


def rational(
    way: Way, shape: tuple[int, ...], dim: int, groups: int, degree: int = 5, start: str = "gelu"
) -> GroupRational:
    """With denominators whose argument of the absolute value changes its sign."""
    made = GroupRational(shape[dim], groups, start, degree=degree, dim=dim, lowering=way[0])
    with torch.no_grad():
        made.denominator.add_(drawn(*made.denominator.shape, seed=3, scale=0.1))
    return made


PLAIN = _quotient._plain


def plain_results(made: GroupRational, x: Tensor, g: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """By torch on the CPU in ``dtype``."""
    named = {name: p.detach().cpu().to(dtype).requires_grad_() for name, p in made.named_parameters()}

    def layer(x: Tensor) -> Tensor:
        return PLAIN(x, named["numerator"], named["denominator"], made.dim)

    return results(layer, named, x.cpu().to(dtype), g.cpu().to(dtype))


def check_rational(
    way: Way, made: GroupRational, x: Tensor, g: Tensor, dtype: torch.dtype = FLOAT32
) -> dict[str, Tensor]:
    made, x, g = made.to(way[1]), x.to(way[1], dtype), g.to(way[1], dtype)
    got = results(made, dict(made.named_parameters()), x, g)
    assert got["y"].dtype is dtype
    assert got["x"].dtype is dtype
    assert_near(got, plain_results(made, x, g, FLOAT32), plain_results(made, x, g, torch.float64), dtype)
    return got


@each_way
@pytest.mark.parametrize("name", SHAPES)
def test_rational_at_all_shapes(way: Way, name: str) -> None:
    shape, dim, groups = SHAPES[name]
    check_rational(way, rational(way, shape, dim, groups), drawn(*shape, scale=2), drawn(*shape, seed=1))


@each_way
@pytest.mark.parametrize(("degree", "start"), [(3, "silu"), (7, "tanh"), (9, "gelu")])
def test_rational_of_every_degree(way: Way, degree: int, start: str) -> None:
    made = rational(way, (20, 8), -1, 2, degree, start)
    check_rational(way, made, drawn(20, 8, scale=2), drawn(20, 8, seed=1))


@each_way
@pytest.mark.parametrize("name", ["rows", "planes"])
def test_rational_in_half_precision(way: Way, name: str) -> None:
    shape, dim, groups = SHAPES[name]
    made = rational(way, shape, dim, groups)
    check_rational(way, made, drawn(*shape, scale=2), drawn(*shape, seed=1), BFLOAT16)


@each_way
def test_rational_of_tensors_with_gaps_and_other_layouts(way: Way) -> None:
    made = rational(way, (3, 12, 4, 5), 1, 3)
    x, g = drawn(3, 12, 4, 5, scale=2), drawn(3, 12, 4, 5, seed=1)
    expected = check_rational(way, made, x, g)
    last = torch.channels_last
    turned = x.transpose(0, 3).contiguous().transpose(0, 3)
    for other in (x.contiguous(memory_format=last), x.repeat(1, 1, 2, 1)[:, :, :4], turned):
        for upstream in (g, g.contiguous(memory_format=last)):
            got = check_rational(way, made, other, upstream)
            torch.testing.assert_close(got["y"], expected["y"])
            torch.testing.assert_close(got["x"], expected["x"])
    y = made(x.contiguous(memory_format=last).to(way[1]))
    assert y.is_contiguous(memory_format=last)
    flat = drawn(1).expand(7, 12, 2, 2)
    check_rational(way, made, flat, drawn(1, seed=2).expand(7, 12, 2, 2))


@each_way
def test_rational_beyond_its_reach_and_at_numbers_that_are_none(way: Way) -> None:
    made = rational(way, (4, 8), -1, 2).to(way[1])
    extreme = [0.0, -0.0, 1e-40, 50.0, 1e3, -1e6, 3e38, -3e38]
    x = torch.tensor([extreme, extreme[::-1], *[[1.0] * 8] * 2], device=way[1]).requires_grad_()
    found = torch.autograd.grad(made(x), [x, *made.parameters()], torch.ones_like(x))
    assert all(bool(t.isfinite().all()) for t in found)
    assert found[0][0, 5:].tolist() == [float(found[0][0, 5]), 0.0, 0.0]  # no slope beyond the reach
    odd = x.detach().clone()
    odd[0, 0], odd[2, 5], odd[3, 1] = torch.nan, torch.inf, -torch.inf
    y = made(odd)
    assert bool(y[0, 0].isnan())
    assert int(y.isnan().sum()) == 1


@pytest.mark.skipif(INTERPRETS, reason="the interpreter takes long")
@each_way
@pytest.mark.parametrize(("shape", "groups"), [((3001, 24), 4), ((1, 70001), 1), ((9, 40000), 2)], ids=str)
def test_rational_of_more_than_one_block(way: Way, shape: tuple[int, int], groups: int) -> None:
    check_rational(way, rational(way, shape, -1, groups), drawn(*shape, scale=2), drawn(*shape, seed=1))


@each_way
def test_rational_twice_gives_equal_bits(way: Way) -> None:
    made = rational(way, (300, 24), -1, 4).to(way[1])
    x, g = drawn(300, 24).to(way[1]), drawn(300, 24, seed=1).to(way[1])
    first, second = (results(made, dict(made.named_parameters()), x, g) for _ in range(2))
    assert all(torch.equal(first[key], value) for key, value in second.items())


@each_way
@each_default
@pytest.mark.parametrize("name", ["rows", "long planes"])
def test_rational_under_other_defaults(way: Way, dtype: torch.dtype, device: str | None, name: str) -> None:
    shape, dim, groups = SHAPES[name]
    made, x, g = rational(way, shape, dim, groups).to(way[1]), drawn(*shape).to(way[1]), drawn(*shape).to(way[1])
    expected = results(made, dict(made.named_parameters()), x, g)
    with defaults(dtype, device):
        got = results(made, dict(made.named_parameters()), x, g)
    assert all(torch.equal(got[key], value) for key, value in expected.items())


@each_way
@pytest.mark.torch_allowed
def test_rational_is_differentiated_twice(way: Way) -> None:
    made = rational(way, (5, 8), -1, 2).to(way[1])
    plain = GroupRational(8, 2, lowering="torch").to(way[1])
    plain.load_state_dict(made.state_dict())
    x = drawn(5, 8).to(way[1]).requires_grad_()
    found = []
    for each in (made, plain):
        (slope,) = torch.autograd.grad(each(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, *each.parameters()]))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


# --- features ------------------------------------------------------------------------------------------------------

CHOSEN = {
    "bspline": [{}, {"grid": 7, "order": 2, "low": -2.0}, {"grid": 1, "order": 5}],
    "piecewise_linear": [{}, {"grid": 1}],
    "fourier": [{}, {"grid": 1}, {"grid": 17, "frequency": 0.7}],
    "chebyshev": [{}, {"degree": 1}, {"degree": 19}],
    "rbf": [{}, {"learn": True, "grid": 11}],
    "relu": [{}, {"grid": 3, "order": 1}],
    "sine": [{}, {"learn": False}],
}
STORED = [
    pytest.param(BASES[name].configure(**kw), id=f"{name}-{k}")
    for name in BASES
    if BASES[name].kernel not in (None, "quotient")
    for k, kw in enumerate(CHOSEN.get(name, [{}]))
]
IN_PROLOGUE = [
    pytest.param(BASES[name].configure(**kw), id=f"{name}-{k}")
    for name in ("bspline", "chebyshev", "fourier", "hermite", "morlet", "piecewise_linear", "rbf", "sine")
    for k, kw in enumerate(CHOSEN.get(name, [{}]))
]


def inputs(basis: Basis, n: int, i: int) -> Tensor:
    """Points of the interval and a little beyond."""
    low, high = basis.interval
    at = torch.rand(n, i, generator=torch.Generator().manual_seed(2)) * 1.2 - 0.1
    return (low + (high - low) * at).bfloat16().float()


def column_results(basis: Basis, x: Tensor, g: Tensor, lowering: str, dtype: torch.dtype) -> dict[str, Tensor]:
    held_in = torch.float64 if dtype is torch.float64 else FLOAT32
    state = {name: v.float().to(held_in) for name, v in basis.state(x.shape[-1]).items()}
    named = {name: state[name].requires_grad_() for name in basis.learned}
    return results(lambda u: basis.columns(u, state, lowering), named, x.to(dtype), g.to(dtype))


@only_c
@pytest.mark.torch_allowed
@pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")
@pytest.mark.parametrize("shape", [(50, 3), (7, 130), (1, 1), (2, 3, 64)], ids=str)
@pytest.mark.parametrize("basis", STORED)
def test_stored_features(basis: Basis, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(basis, shape[0] * (shape[1] if len(shape) == 3 else 1), shape[-1]).reshape(shape)
    g = drawn(*shape[:-1], basis.n_functions, shape[-1], seed=1)
    eager, exact = (column_results(basis, x, g, "torch", dtype) for dtype in (FLOAT32, torch.float64))
    half = column_results(basis, x, g, "torch", BFLOAT16)["y"]
    monkeypatch.setattr(Basis, "plain_columns", _refused)
    assert_near(column_results(basis, x, g, "c", FLOAT32), eager, exact, FLOAT32)
    got = column_results(basis, x, g, "c", BFLOAT16)
    assert got["y"].dtype is BFLOAT16
    assert error(got["y"], exact["y"]) <= 2 * error(half, exact["y"]) + 1e-6


@only_c
@pytest.mark.torch_allowed
@pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")
@pytest.mark.parametrize("shape", [(600, 64), (20000, 3)], ids=str)
def test_gradients_of_coefficients_over_many_rows(shape: tuple[int, int]) -> None:
    basis = BASES["dog"].configure(grid=2)
    x, g = inputs(basis, *shape), drawn(shape[0], 2, shape[1], seed=1)
    eager, exact = (column_results(basis, x, g, "torch", dtype) for dtype in (FLOAT32, torch.float64))
    assert_near(column_results(basis, x, g, "c", FLOAT32), eager, exact, FLOAT32)


@only_c
@pytest.mark.torch_allowed
@pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")
@pytest.mark.parametrize("basis", STORED)
def test_stored_features_of_extreme_numbers(basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite on the whole line, and a NaN stays one."""
    values = [0.0, -0.0, 1e-40, 1.0, -1.0, 9.05, 1e3, -1e6, 3e38, -3e38]
    x = torch.tensor(values).unsqueeze(-1).expand(-1, 2).clone()
    state = {name: v.float() for name, v in basis.state(2).items()}
    plain = basis.columns(x.double(), {n: v.double() for n, v in state.items()}, "torch")
    monkeypatch.setattr(Basis, "plain_columns", _refused)
    x.requires_grad_()
    y = basis.columns(x, state, "c")
    assert bool(y.isfinite().all())
    assert bool(torch.autograd.grad(y, x, torch.ones_like(y))[0].isfinite().all())
    small = x.detach().abs().amax(1) <= 10
    torch.testing.assert_close(y[small].double(), plain[small], rtol=1e-4, atol=1e-5)
    odd = basis.columns(torch.tensor([[torch.nan, 0.5]]), state, "c")
    varying = basis.columns(torch.tensor([[0.1, 0.1], [0.7, 0.7]]), state, "c").diff(dim=0).abs()[0, :, 0] > 0
    assert bool(odd[0, varying, 0].isnan().all())
    assert not bool(odd[0, :, 1].isnan().any())


@only_c
@each_default
@pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")
@pytest.mark.parametrize("i", [3, 70])
@pytest.mark.parametrize("name", ["bspline", "chebyshev", "fourier", "gram", "morlet"])
def test_stored_features_under_other_defaults(name: str, i: int, dtype: torch.dtype, device: str | None) -> None:
    """One basis of every form, and with gradients of its tensors."""
    basis = BASES[name].configure(**({"learn": True} if name == "morlet" else {}))
    state = {key: v.float() for key, v in basis.state(i).items()}
    named = {key: state[key].requires_grad_() for key in basis.learned}
    x, g = inputs(basis, 20, i), drawn(20, basis.n_functions, i, seed=1)
    expected = results(lambda u: basis.columns(u, state, "c"), named, x, g)
    for kept in (_polynomial._kept, _features._refused):
        kept.cache_clear()
    with defaults(dtype, device):
        got = results(lambda u: basis.columns(u, state, "c"), named, x, g)
    assert all(torch.equal(got[key], value) for key, value in expected.items())


def marked_points(basis: Basis) -> Tensor:
    """Where formulas change over, ``[N, 1]``: 0 and simple numbers, ends of the interval, the points of a grid."""
    state = basis.state(1)
    points = [torch.tensor([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, *basis.interval])]
    if "step" in state:
        points.append(state["low"] + state["step"] * torch.arange(basis.n_functions))
    points += [state[name].flatten() for name in ("centres", "start") if name in state]
    return torch.cat([p.float() for p in points]).unsqueeze(-1)


@only_c
@pytest.mark.torch_allowed
@pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")
@pytest.mark.parametrize("basis", STORED)
def test_stored_features_at_marked_points(basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    if basis.name == "piecewise_linear":
        basis = basis.configure(grid=8)  # whose kinks float32 holds: the slope is that of the same side
    x = marked_points(basis)
    g = drawn(len(x), basis.n_functions, 1, seed=1)
    exact = column_results(basis, x, g, "torch", torch.float64)
    monkeypatch.setattr(Basis, "plain_columns", _refused)
    got = column_results(basis, x, g, "c", FLOAT32)
    for key, value in exact.items():
        torch.testing.assert_close(got[key].double(), value, rtol=1e-4, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


@only_c
@pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")
def test_sinc_and_its_slope_in_c() -> None:
    """Next to 0, where they are series, and where an argument of sin is 1 by chance."""
    from layersearch.kernels.features.c import CFeatures

    form = Profiles(Curve(("y = sinc(z)", "slope = sinc_slope(z)")))
    features = Features(form, 1, (-100.0, 100.0))
    points = [0.0, 1e-8, 9.9e-4, 1.1e-3, 0.0299, 0.0301, 0.31830987, 0.31830990, 0.5, 1.0, 2.0, 7.3]
    x = torch.tensor([s * p for p in points for s in (1, -1)]).unsqueeze(-1)
    at = [torch.zeros(1, 1), torch.ones(1, 1)]
    kernel = CFeatures(features)
    held = x.double().requires_grad_()
    y = torch.sinc(held)
    (slope,) = torch.autograd.grad(y.sum(), held)
    torch.testing.assert_close(kernel.forward(x, at, features)[:, 0].double(), y.detach(), rtol=0, atol=1e-6)
    found, _ = kernel.backward(torch.ones(len(x), 1, 1), x, at, features, False)
    torch.testing.assert_close(found.double(), slope, rtol=0, atol=1e-5)


def layer(way: Way, basis: Basis, i: int, o: int) -> KANLinear:
    made = KANLinear(i, o, basis, base=None, domain="none", lowering=way[0], generator=torch.Generator().manual_seed(0))
    return made.to(way[1])


def product_results(made: KANLinear, x: Tensor, g: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """By torch in ``dtype``, with features and a product."""
    named = {name: p.detach().cpu().to(dtype).requires_grad_() for name, p in made.named_parameters()}
    state = {name: v.detach().cpu().to(dtype) for name, v in made.functions.state.items()}
    state |= {name: named[f"functions.{name}"] for name in made.basis.learned}

    def layer(x: Tensor) -> Tensor:
        columns = made.basis._columns(x.clamp(*made.basis.reach), state)
        return torch.nn.functional.linear(columns.flatten(-2), named["weight"].flatten(1), named["bias"])

    return results(layer, named, x.cpu().to(dtype), g.cpu().to(dtype))


@each_way
@pytest.mark.torch_allowed
@pytest.mark.parametrize("sizes", [(37, 5, 3), (1, 1, 1), (70, 33, 20)], ids=str)
@pytest.mark.parametrize("basis", IN_PROLOGUE)
def test_product_of_features(
    way: Way, basis: Basis, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_large = basis.n_functions > 14 or (sizes[0] == 70 and basis.name not in ("bspline", "chebyshev", "rbf"))
    if INTERPRETS and is_large:
        pytest.skip("the interpreter takes long")
    n, i, o = sizes
    made, x, g = layer(way, basis, i, o), inputs(basis, n, i), drawn(n, o, seed=1)
    monkeypatch.setattr(Basis, "plain_columns", _refused)
    got = results(made, dict(made.named_parameters()), x.to(way[1]), g.to(way[1]))
    assert_near(got, product_results(made, x, g, FLOAT32), product_results(made, x, g, torch.float64), FLOAT32)


@each_way
@pytest.mark.torch_allowed
def test_product_in_half_precision_and_under_autocast(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    basis = BASES["chebyshev"]
    made, x, g = layer(way, basis, 6, 4), inputs(basis, 20, 6), drawn(20, 4, seed=1)
    exact = product_results(made, x, g, torch.float64)
    monkeypatch.setattr(Basis, "plain_columns", _refused)
    with torch.autocast(way[1], dtype=BFLOAT16):
        got = results(made, dict(made.named_parameters()), x.to(way[1]), g.to(way[1]))
    assert got["y"].dtype is BFLOAT16
    assert got["x"].dtype is FLOAT32
    half = made.to(BFLOAT16)
    again = results(half, dict(half.named_parameters()), x.to(way[1], BFLOAT16), g.to(way[1]))
    assert again["y"].dtype is BFLOAT16
    for found, key in itertools.product((got, again), exact):
        assert error(found[key], exact[key]) < 0.03, key


@each_way
@each_default
@pytest.mark.torch_allowed
@pytest.mark.parametrize("name", ["chebyshev", "rbf"])
def test_a_layer_under_other_defaults(way: Way, name: str, dtype: torch.dtype, device: str | None) -> None:
    basis = BASES[name]
    made, x, g = layer(way, basis, 5, 3), inputs(basis, 20, 5).to(way[1]), drawn(20, 3, seed=1).to(way[1])
    expected = results(made, dict(made.named_parameters()), x, g)
    with defaults(dtype, device):
        got = results(made, dict(made.named_parameters()), x, g)
    assert all(torch.equal(got[key], value) for key, value in expected.items())


@each_way
@pytest.mark.torch_allowed
@pytest.mark.parametrize("name", ["chebyshev", "rbf", "bspline"])
def test_products_are_differentiated_twice(way: Way, name: str) -> None:
    basis = BASES[name].configure(**({"learn": True} if name == "rbf" else {}))
    made, x = layer(way, basis, 3, 2), inputs(basis, 5, 3).to(way[1]).requires_grad_()
    other = KANLinear(3, 2, basis, base=None, domain="none", lowering="torch").to(way[1])
    other.load_state_dict(made.state_dict())
    found = []
    for each in (made, other):
        (slope,) = torch.autograd.grad(each(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, *each.parameters()], allow_unused=True))
    for got, expected in zip(*found, strict=True):
        if expected is None:
            assert got is None or not bool(got.any())
        else:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@each_way
@pytest.mark.torch_allowed
def test_torch_compile_sees_one_op_per_direction(way: Way) -> None:
    x = drawn(10, 8).to(way[1])
    rows = (BASES["rbf"].configure(learn=True), BASES["bspline"])
    warnings.simplefilter("error")  # of a cache that is traced
    for made in (rational(way, (10, 8), -1, 2), *(layer(way, row, 8, 4) for row in rows)):
        made = made.to(way[1])
        torch._dynamo.reset()
        compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
        named = dict(made.named_parameters())
        expected = results(made, named, x, drawn(1).to(way[1]))
        got = results(compiled, named, x, drawn(1).to(way[1]))
        for key, value in expected.items():
            torch.testing.assert_close(got[key], value)


def opcheck_cases() -> Iterator[tuple[object, tuple[object, ...]]]:
    a, b = drawn(6).requires_grad_(), drawn(2, 4, seed=1).requires_grad_()
    by = "triton" if INTERPRETS else "c"
    yield _quotient._forward_op, (drawn(5, 8).requires_grad_(), a, b, 1, by)
    values = [v.float().requires_grad_() for v in BASES["rbf"].state(4).values()]
    key = _features.known_basis(BASES["rbf"].configure(learn=True))
    if INTERPRETS:
        yield _product._forward_op, (drawn(5, 4).requires_grad_(), drawn(3, 8, 4).requires_grad_(), values, key, "ieee")
    else:
        yield _features._forward_op, (drawn(5, 4).requires_grad_(), values, key)


@pytest.mark.torch_allowed
@pytest.mark.skipif(not INTERPRETS and reason_against("c") is not None, reason="no C compiler")
def test_ops_are_what_torch_asks_of_ops() -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for op, arguments in opcheck_cases():
        torch.library.opcheck(op, arguments, test_utils=checks)  # type: ignore[arg-type]


@pytest.mark.torch_allowed
@once_interpreted
def test_the_interpreter_runs_all_of_the_above() -> None:
    passed, cpu_s = interpreted(__file__)
    assert passed > 40
    assert cpu_s < CPU_SECONDS

"""What every basis promises; a new one is picked up from the registry and needs a reference here."""

import ast
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from basis_references import REFERENCES, Array
from torch import Tensor

from layersearch.errors import BadInputError, UnknownNameError
from layersearch.primitives import BASES, BasisFunctions
from layersearch.primitives.basis import Basis

NAMES = list(BASES)
LARGER = {
    "bspline": [{"grid": 7, "order": 2}, {"grid": 3, "order": 5}, {"grid": 6, "uniform": False, "low": 0.0}],
    "gegenbauer": [{"degree": 7, "alpha": 0.7}],
    "jacobi": [{"degree": 6, "alpha": 0.3, "beta": 2.0}],
    "laguerre": [{"degree": 6, "alpha": 1.5}],
    "piecewise_linear": [{"grid": 1}, {"grid": 2}, {"grid": 17, "low": -3.0}],
    "rational": [{"degree": 7, "groups": 3, "start": "gelu"}, {"degree": 3}, {"degree": 9, "start": "tanh"}],
    "fourier": [{"grid": 9, "frequency": 0.5}],
    "relu": [{"grid": 4, "order": 1, "low": 0.0}],
}
EXTREMES = (0.0, 1e-30, 1e-3, 0.5, 1.0, 3.5, 9.05, 10.0, 1e3, 1e6, 3e38)


def rows(name: str) -> list[Basis]:
    """The default row, a larger one, and those above."""
    row = BASES[name]
    knob = {} if name == "rational" else {row.knob: getattr(row, row.knob) + 7}
    return [row, row.configure(**knob), *(row.configure(**s) for s in LARGER.get(name, []))]


CASES = [pytest.param(row, id=f"{n}-{i}") for n in NAMES for i, row in enumerate(rows(n))]
DEFAULTS = [pytest.param(BASES[n], id=n) for n in NAMES]


def inside(basis: Basis, count: int = 41, inputs: int = 3) -> Tensor:
    """Points of the interval, its ends included, other ones for each input, ``[N, I]`` in float64."""
    low, high = basis.interval
    x = torch.linspace(low, high, count, dtype=torch.float64).unsqueeze(-1).repeat(1, inputs)
    shift = 0.37 * torch.arange(inputs) * (high - low) / count
    x[1:-1] += shift
    return x


def numpy_state(basis: Basis, inputs: int = 3) -> dict[str, Array]:
    return {name: value.numpy() for name, value in basis.state(inputs).items()}


@pytest.mark.parametrize("basis", CASES)
def test_values_are_those_of_an_independent_reference(basis: Basis) -> None:
    x = inside(basis)
    got = basis.evaluate(x, basis.state(3))
    assert got.shape == (41, 3, basis.n_functions)
    for i in range(3):
        expected = REFERENCES[basis.name](basis, x[:, i].numpy(), numpy_state(basis), i)
        np.testing.assert_allclose(got[:, i].numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("basis", DEFAULTS)
def test_float32_and_bfloat16_are_rounded_float64(basis: Basis) -> None:
    state = basis.state(3)
    for dtype, relative in ((torch.float32, 2e-5), (torch.bfloat16, 2**-8)):
        x = inside(basis).to(dtype)
        exact = basis.evaluate(x.double(), state)
        got = basis.evaluate(x, state)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), exact, rtol=relative, atol=1e-5)


@pytest.mark.parametrize("basis", DEFAULTS)
def test_gradients_of_inputs_and_learned_tensors(basis: Basis) -> None:
    low, high = basis.interval
    generator = torch.Generator().manual_seed(1)
    x = (low + (high - low) * torch.rand(4, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    state = basis.state(2)
    learned = [state[name].clone().requires_grad_() for name in basis.learned]

    def features(x: Tensor, *values: Tensor) -> Tensor:
        return basis.evaluate(x, state | dict(zip(basis.learned, values, strict=True)))

    assert torch.autograd.gradcheck(features, (x, *learned), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("domain", ["default", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("basis", DEFAULTS)
def test_values_and_gradients_are_finite_on_the_whole_line(basis: Basis, dtype: torch.dtype, domain: str) -> None:
    functions = BasisFunctions(basis, 1, None if domain == "default" else domain, dtype=dtype)
    x = torch.tensor([s * v for v in EXTREMES for s in (1, -1)], dtype=dtype).unsqueeze(-1).requires_grad_()
    y = functions(x)
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for gradient in torch.autograd.grad(y, [x, *functions.parameters()], upstream):
        assert bool(gradient.isfinite().all())
    dense = torch.linspace(-1e6, 1e6, 1001, dtype=dtype).unsqueeze(-1)
    assert bool(functions(dense).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("basis", CASES)
def test_a_nan_stays_one_and_touches_no_other(basis: Basis, dtype: torch.dtype) -> None:
    """By torch: those of kernels are in test_kernel_contract.py."""
    state, x = basis.state(3), inside(basis).to(dtype)
    whole = basis.columns(x, state, "torch")
    varies = (whole.amax(0) > whole.amin(0))[:, 1]
    holed = x.clone()
    holed[7, 1] = torch.nan
    got = basis.columns(holed, state, "torch")
    assert bool(varies.any())
    assert bool(got[7, varies, 1].isnan().all())
    got[7, :, 1] = whole[7, :, 1]
    assert torch.equal(got, whole)


@pytest.mark.parametrize("basis", CASES)
def test_the_printed_form_evaluates_to_the_same_numbers(basis: Basis) -> None:
    state = basis.state(3)
    x = inside(basis)
    got = basis.evaluate(x, state)
    for i in (0, 2):
        for k in range(basis.n_functions):
            printed = evaluate(basis.text(k, state, 0 if basis.name == "rational" else i), x[:, i].numpy())
            np.testing.assert_allclose(printed, got[:, i, k].numpy(), rtol=1e-6, atol=1e-6)
    for k in range(basis.n_functions):
        latex = basis.latex(k)
        assert latex
        assert latex.count("{") == latex.count("}")
        assert latex.count(r"\left") == latex.count(r"\right")


@pytest.mark.parametrize("basis", DEFAULTS)
def test_a_state_dict_restores_the_functions(basis: Basis) -> None:
    first, second = BasisFunctions(basis, 4), BasisFunctions(basis, 4)
    with torch.no_grad():
        for value in first.state.values():
            value.mul_(1.01)
    assert set(dict(first.named_parameters())) == set(basis.learned)
    x = inside(basis, inputs=4).float()
    if basis.state(4):
        assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("basis", CASES)
def test_a_row_is_complete(basis: Basis) -> None:
    assert basis.title
    assert basis.source
    assert type(basis).__doc__
    assert basis.flops > 0
    assert basis.knob in basis.settings()
    low, high = basis.interval
    assert low < high
    for name, rule in basis.settings().items():
        assert rule.about
        if rule.choices or isinstance(rule.default, bool):
            continue
        with pytest.raises(BadInputError, match=f"{name} of basis '{basis.name}' must be"):
            basis.configure(**{name: rule.high + 1})
        with pytest.raises(BadInputError, match=f"{name} of basis"):
            basis.configure(**{name: float("nan")})
    with pytest.raises(UnknownNameError, match=f"unknown setting of basis '{basis.name}' 'size'"):
        basis.configure(size=3)


@pytest.mark.parametrize("basis", DEFAULTS)
def test_functions_are_bounded_where_they_are_meant_to_be(basis: Basis) -> None:
    if basis.name == "rational":
        pytest.skip("an activation, not bounded")
    for row in rows(basis.name):
        assert float(row.evaluate(inside(row, 401), row.state(3)).abs().max()) <= 1 + 1e-6


@pytest.mark.parametrize("basis", [c for c in DEFAULTS if c.values[0].has_grid])  # type: ignore[union-attr]
def test_a_grid_can_be_placed_and_refined(basis: Basis) -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.0]) + 2
    placed = basis.placed(x)
    low, high = basis.span(placed)
    assert bool((low <= x.amin(0)).all())
    assert bool((high >= x.amax(0)).all())
    assert bool((high - low <= 1.1 * (x.amax(0) - x.amin(0)) + 0.05).all())
    finer = basis.configure(grid=2 * basis.grid)  # type: ignore[attr-defined]
    for before, after in zip((low, high), finer.span(finer.refined(basis, placed)), strict=True):
        torch.testing.assert_close(after, before)
    assert bool(basis.evaluate(x.double(), placed).isfinite().all())


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "abs": np.abs,
    "cos": np.cos,
    "exp": np.exp,
    "sin": np.sin,
    "sinc": np.sinc,
    "tanh": np.tanh,
    "max": np.maximum,
    "min": np.minimum,
}
OPERATORS: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


def evaluate(text: str, x: Array) -> Array:
    """The value of a printed form, by its syntax tree: nothing but the vocabulary above is understood."""

    def value(node: ast.expr) -> Array:
        if isinstance(node, ast.Constant):
            return np.float64(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.Name):
            return {"x": x, "pi": np.float64(math.pi)}[node.id]
        if isinstance(node, ast.UnaryOp):
            assert isinstance(node.op, ast.USub)
            return -value(node.operand)
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        return FUNCTIONS[node.func.id](*map(value, node.args))

    return np.broadcast_to(value(ast.parse(text, mode="eval").body), x.shape)

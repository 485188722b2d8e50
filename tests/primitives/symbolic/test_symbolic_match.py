"""Curves are found to be the functions that they are, with their constants; others are refused."""

import math

import pytest
import torch
from planted import planted_layer
from torch import Tensor

from layersearch.primitives.symbolic.chain import chain_of
from layersearch.primitives.symbolic.form import CONSTANT, FORMS
from layersearch.primitives.symbolic.match import Match, match_curves

X = torch.linspace(-1, 1, 256, dtype=torch.float64)
PLANTED = {
    "x": (-2.0, 1.0, 0.0, 0.5),
    "x^2": (1.5, 1.0, 0.3, -1.0),
    "x^3": (1.0, 1.0, -0.2, 0.0),
    "x^4": (-0.5, 1.0, 0.1, 2.0),
    "1/x": (3.0, 1.0, -1.5, 2.0),
    "1/x^2": (1.0, 1.0, 2.0, 0.0),
    "sqrt": (2.0, -1.0, 1.25, 0.0),
    "log": (0.7, 1.0, 1.4, 0.1),
    "exp": (0.4, -2.0, 0.0, 1.0),
    "abs": (1.2, 1.0, -0.25, 0.0),
    "sin": (0.7, math.pi, 0.4, 0.1),
    "tanh": (-1.3, 3.0, -1.0, 0.2),
    "arctan": (1.0, 5.0, 0.5, 0.0),
    "silu": (0.9, -4.0, 0.5, 0.0),
    "gaussian": (1.1, 2.5, -0.5, 0.3),
}


def test_every_form_is_planted_here() -> None:
    assert sorted(PLANTED) == list(FORMS)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_function_is_found_with_its_constants(name: str) -> None:
    y = Match(name, PLANTED[name], 1.0)(X)
    (found,) = match_curves(X, y.unsqueeze(1))
    assert found.form == name
    assert found.constants == pytest.approx(PLANTED[name], abs=1e-3)
    assert found.r2 > 1 - 1e-6


@pytest.mark.parametrize("name", PLANTED)
def test_on_any_range_and_in_any_units(name: str) -> None:
    """The same function of an input of other units, seen unevenly: the fit does not depend on either."""
    u = torch.sort(X.sign() * X.abs() ** 1.5).values
    y = Match(name, PLANTED[name], 1.0)(u)
    (found,) = match_curves(300 + 40 * u, 1e4 * y.unsqueeze(1))
    assert found.form == name
    assert found.r2 > 1 - 1e-6
    torch.testing.assert_close(found(300 + 40 * u), 1e4 * y, rtol=1e-3, atol=3.0)


@pytest.mark.parametrize("name", PLANTED)
def test_sympy_and_torch_say_the_same_and_constants_are_unique(name: str) -> None:
    import sympy

    form, (a, b, c, d) = FORMS[name], PLANTED[name]
    symbol = sympy.Symbol("x")
    expression = a * form.sympy(b * symbol + c, sympy) + d
    for value in (-0.7, 0.1, 0.6):
        ours = Match(name, (a, b, c, d), 1.0)(torch.tensor([value], dtype=torch.float64))
        assert float(expression.subs(symbol, value)) == pytest.approx(float(ours), rel=1e-12)
    assert form.canonical(a, b, c, d) == pytest.approx((a, b, c, d))
    scaled = {"": (2 * b, 0.3), "c": (-2 * b, -2 * c), "sign": (2 * b, 2 * c), "b": (b, 0.7), "bc": (b, c)}[form.inner]
    once = form.canonical(a, *scaled, d)
    again = Match(name, once, 1.0)(X)
    torch.testing.assert_close(again, Match(name, (a, *scaled, d), 1.0)(X))
    assert form.canonical(*once) == pytest.approx(once)


@pytest.mark.parametrize("phase", [-9.0, -1.6, 0.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("slope", [-2.0, 3.0])
def test_a_sine_has_one_phase(slope: float, phase: float) -> None:
    constants = FORMS["sin"].canonical(1.5, slope, phase, 0.2)
    assert constants[1] > 0
    assert -math.pi / 2 < constants[2] <= math.pi / 2
    torch.testing.assert_close(Match("sin", constants, 1.0)(X), Match("sin", (1.5, slope, phase, 0.2), 1.0)(X))


@pytest.mark.parametrize("slope", [-30.0, 30.0])
def test_an_exponential_far_from_zero_keeps_a_constant_inside(slope: float) -> None:
    """Taken out of it, the factor is 0 or infinite: a narrow hidden node would end the whole reading."""
    x = torch.linspace(1000, 1000.1, 100, dtype=torch.float64)
    y = torch.exp(slope * (x - 1000))
    (match,) = match_curves(x, y.unsqueeze(1))
    assert match.form == "exp"
    torch.testing.assert_close(match(x), y, rtol=1e-8, atol=0)


def test_a_simple_function_wins_unless_the_other_explains_much_more() -> None:
    noise = 0.03 * torch.randn(256, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    line = match_curves(X, X.unsqueeze(1) + noise)[0]
    assert line.form == "x"
    wave = match_curves(X, torch.sin(2 * X).unsqueeze(1) + noise)[0]
    assert wave.form == "sin"
    # cos(x/4) is a parabola but for 1e-6 of its variance: with some noise nobody can tell, and the shorter one is named
    assert match_curves(X, torch.cos(X / 4).unsqueeze(1) + 3e-3 * noise)[0].form == "x^2"


def test_what_does_as_well_is_named() -> None:
    y = torch.exp(0.5 * X) + 2e-3 * torch.sin(30 * X)
    found = match_curves(X, y.unsqueeze(1))[0]
    assert found.ties
    assert found.form not in dict(found.ties)
    assert all(name in FORMS and 0.9 < r2 <= 1 for name, r2 in found.ties)


def test_noise_is_none_of_them(rounds: int) -> None:
    for seed in range(rounds):
        noise = torch.randn(256, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert all(found.r2 < 0.3 for found in match_curves(X, noise))  # 256 points; the largest of 200 seeds is .1


def test_what_does_not_vary_is_a_constant() -> None:
    flat, still = match_curves(X, torch.full((256, 1), 3.0)), match_curves(torch.ones(256), X.unsqueeze(1))
    assert (flat[0].form, flat[0].constants[3], flat[0].text("x1")) == (CONSTANT, 3.0, "3")
    assert still[0].form == CONSTANT


def test_edges_of_a_layer_are_read_exactly() -> None:
    def wave(x: Tensor) -> Tensor:
        return 0.5 * torch.sin(3 * x + 0.4)

    functions = {(0, 0): wave, (0, 1): torch.square, (1, 0): lambda x: torch.log(x + 2), (1, 1): torch.exp}
    layer = planted_layer(2, 2, functions)
    (edges,) = chain_of(layer).layers
    found = match_curves(X, edges.edges(X.unsqueeze(1).expand(-1, 2)).reshape(256, 4))
    assert [match.form for match in found] == ["sin", "x^2", "log", "exp"]
    expected = [(0.5, 3.0, 0.4, 0.0), (1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 2.0, 0.0), (1.0, 1.0, 0.0, 0.0)]
    for match, constants in zip(found, expected, strict=True):
        assert match.constants == pytest.approx(constants, abs=1e-3)


@pytest.mark.parametrize(
    ("form", "constants", "text"),
    [
        ("x", (-1.0, 1.0, 0.0, 0.5), "-x1 + 0.5"),
        ("x^2", (2.0, 1.0, 0.0, 0.0), "2*x1^2"),
        ("x^2", (1.0, 1.0, -0.5, 0.0), "(x1 - 0.5)^2"),
        ("1/x", (3.0, 1.0, 1.5, -2.0), "3/(x1 + 1.5) - 2"),
        ("sqrt", (1.0, -1.0, 1.0, 0.0), "sqrt(-x1 + 1)"),
        ("sin", (0.12345, math.pi, 0.0, 0.0), "0.123*sin(3.14*x1)"),
        ("gaussian", (1.0, 2.0, 0.0, 0.0), "exp(-(2*x1)^2)"),
    ],
)
def test_matches_as_text(form: str, constants: tuple[float, float, float, float], text: str) -> None:
    assert Match(form, constants, 1.0).text("x1") == text

"""Which function of the library a sampled curve is, with its constants: ``a f(b x + c) + d``, and how sure that is.

b and c are searched on a grid, where the best a and d are a regression in closed form (one matrix product for all
curves of an input), and refined by non-linear least squares. The choice weighs what is left unexplained against what
the function costs a reader.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layersearch.primitives.symbolic.form import CONSTANT, FORMS, Constants, Form

__all__ = ["PARSIMONY", "Match", "match_curves"]

PARSIMONY = 0.3
"""One more unit of complexity must halve what is unexplained (a factor of 10^0.3)."""

_TIE = 0.3
"""Scores nearer than this are a tie."""
_FLOOR = 1e-7
"""Parts of the variance below this count as nothing: two fits that good are told apart by their complexity alone."""
_HOPEFUL = 0.8
"""R² on the grid from which a refinement is tried; the grids are fine enough to lose less than .1."""
_STARTS = 2
_EPSILON = 1e-3
"""How far poles stay from the data, in half widths of their range."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """The best match of one curve.

    Args:
        form: name in ``FORMS``, or ``constant``.
        constants: a, b, c, d of ``a f(b x + c) + d``.
        r2: part of the curve's variance over the data that it explains.
        ties: other forms that do as well by the same score, each with its R²; better ones first.
    """

    form: str
    constants: Constants
    r2: float
    ties: tuple[tuple[str, float], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        a, b, c, d = self.constants
        return torch.full_like(x, d) if self.form == CONSTANT else a * FORMS[self.form].of(b * x + c) + d

    def text(self, x: str, digits: int = 3) -> str:
        """As a formula of ``x``, constants rounded to ``digits`` significant digits."""
        a, b, c, d = (float(f"{value:.{digits}g}") for value in self.constants)
        if self.form == CONSTANT:
            return f"{d:g}"
        inner = ("" if b == 1 else "-" if b == -1 else f"{b:g}*") + x + (f" {_signed(c)}" if c else "")
        outer = "" if a == 1 else "-" if a == -1 else f"{a:g}*"
        called = FORMS[self.form].text(inner)
        if self.form.startswith("1/"):
            outer, called = f"{a:g}", called[1:]
        return outer + called.replace(f"({x})^", f"{x}^") + (f" {_signed(d)}" if d else "")


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'} {abs(value):g}"


@cache
def _grid(name: str) -> tuple[Tensor, int]:
    """Pairs of β and γ for arguments ``β t + γ`` of t in [-1, 1], ``[M, 2]``, ordered so that those with the same β, or
    sign, follow each other; and how many do."""
    form = FORMS[name]
    one = torch.ones(1, dtype=torch.float64)
    match form.inner:
        case "":
            return torch.tensor([[1.0, 0.0]], dtype=torch.float64), 1
        case "c":
            return torch.cartesian_prod(one, torch.linspace(-3, 3, 61, dtype=torch.float64)), 61
        case "sign":
            gamma = 1 + torch.logspace(math.log10(_EPSILON), 1, 17, dtype=torch.float64)
            return torch.cartesian_prod(torch.tensor([1.0, -1.0], dtype=torch.float64), gamma), 17
        case "b":
            size = torch.logspace(-1, math.log10(12), 24, dtype=torch.float64)
            return torch.cartesian_prod(torch.cat([-size, size]), 0 * one), 1
    if name == "sin":
        phases = torch.arange(12, dtype=torch.float64) * (math.pi / 12)
        return torch.cartesian_prod(torch.linspace(0.2, 40, 200, dtype=torch.float64), phases), 12
    slopes, centres = torch.logspace(-0.3, 1.4, 20, dtype=torch.float64), torch.linspace(-1.5, 1.5, 31).double()
    pairs = torch.cartesian_prod(torch.cat([-slopes, slopes]) if name == "silu" else slopes, centres)
    return torch.stack([pairs[:, 0], -pairs[:, 0] * pairs[:, 1]], 1), 31


def match_curves(x: Tensor, curves: Tensor) -> list[Match]:
    """The best match of each of several curves over the same points.

    Args:
        x: ``[N]``, where the input is seen; points that are seen more often count more by standing there more often.
        curves: ``[N, E]``, values of each curve there.
    Returns: one per curve, whatever its R²: whether that is enough is for the caller to say.
    """
    x, curves = x.double(), curves.double()
    low, high = float(x.min()), float(x.max())
    middle, half = (low + high) / 2, (high - low) / 2
    size = curves.abs().amax(0)
    flat = curves.std(0, correction=0) <= 1e-9 * size + 1e-300
    if half <= 1e-12 * max(1.0, abs(middle)):
        flat[:] = True
    t = (x - middle) / (half or 1.0)
    scored = {name: _grid_r2(name, t, curves) for name in FORMS} if not bool(flat.all()) else {}
    found = []
    for e in range(curves.shape[1]):
        if flat[e]:
            found.append(Match(CONSTANT, (0.0, 1.0, 0.0, float(curves[:, e].mean())), 1.0))
            continue
        found.append(_choose({name: r2[:, e] for name, r2 in scored.items()}, t, curves[:, e], middle, half))
    return found


def _grid_r2(name: str, t: Tensor, curves: Tensor) -> Tensor:
    """``[M, E]``: part of the variance of each curve that each point of the grid explains, 0 where it is undefined."""
    pairs, _ = _grid(name)
    centred = curves - curves.mean(0)
    r2 = []
    for part in torch.split(pairs, 512):
        values = FORMS[name].of(part[:, :1] * t + part[:, 1:])
        values = torch.nan_to_num(values - values.mean(1, keepdim=True), 0.0, 0.0, 0.0)
        square = values.square().sum(1, keepdim=True)
        r2.append((values @ centred).square() / (square * centred.square().sum(0)).clamp_min(1e-300))
    return torch.cat(r2)


def _choose(scored: dict[str, Tensor], t: Tensor, y: Tensor, middle: float, half: float) -> Match:
    best = max(scored, key=lambda name: float(scored[name].max()))
    tried: list[tuple[float, Match]] = []
    for name, r2 in scored.items():
        if float(r2.max()) < _HOPEFUL and name != best:
            continue
        (beta, gamma), value = max((_refined(FORMS[name], p, t, y) for p in _starts(name, r2)), key=lambda f: f[1])
        a, d = _regression(FORMS[name].of(beta * t + gamma), y)
        constants = _snapped(
            FORMS[name].canonical(a, beta / half, gamma - beta * middle / half, d), abs(middle) + half, y
        )
        score = math.log10(max(0.0, 1 - value) + _FLOOR) + PARSIMONY * FORMS[name].cost
        tried.append((score, Match(name, constants, value)))
    tried.sort(key=lambda pair: pair[0])
    score, match = tried[0]
    ties = tuple((other.form, other.r2) for s, other in tried[1:] if s - score < _TIE)
    return Match(match.form, match.constants, match.r2, ties)


def _snapped(constants: Constants, size: float, y: Tensor) -> Constants:
    """c and d as 0 where only rounding keeps them from it."""
    a, b, c, d = constants
    c = 0.0 if abs(c) <= 1e-8 * abs(b) * size else c
    return a, b, c, 0.0 if abs(d) <= 1e-8 * float(y.abs().max()) else d


def _starts(name: str, r2: Tensor) -> list[tuple[float, float]]:
    """The best local maxima of the grid: along β of the best γ for each."""
    pairs, together = _grid(name)
    best, where = r2.view(-1, together).max(1)
    padded = torch.cat([best.new_full((1,), -1.0), best, best.new_full((1,), -1.0)])
    peaks = ((best >= padded[:-2]) & (best >= padded[2:])).nonzero().flatten().tolist()
    peaks.sort(key=lambda i: -float(best[i]))
    rows = [i * together + int(where[i]) for i in peaks[:_STARTS]]
    return [(float(pairs[i, 0]), float(pairs[i, 1])) for i in rows]


def _refined(form: Form, start: tuple[float, float], t: Tensor, y: Tensor) -> tuple[tuple[float, float], float]:
    """β and γ near ``start``, and their R²."""
    from scipy.optimize import least_squares

    beta, gamma = start
    total = float((y - y.mean()).square().sum())
    scale = math.sqrt(total)

    def place(p: Any) -> tuple[float, float]:
        match form.inner:
            case "c" | "sign":
                return beta, float(p[0])
            case "b":
                return float(p[0]), 0.0
            case "bc":
                return float(p[0]), float(p[1])
        return beta, gamma

    def residual(p: Any) -> Floats:
        b, c = place(p)
        values = form.of(b * t + c)
        if not bool(values.isfinite().all()):
            return np.full(len(t), 1.0)
        a, d = _regression(values, y)
        left: Floats = ((a * values + d - y) / scale).numpy()
        return left

    if not form.inner:
        return start, 1 - float(np.square(residual(())).sum())
    inside = {"c": [gamma], "sign": [gamma], "b": [beta], "bc": [beta, gamma]}[form.inner]
    tight: dict[str, Any] = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12, "max_nfev": 60}
    if form.inner == "sign":
        lowest = 1.0 if form.name == "sqrt" else 1 + _EPSILON / 2
        found = least_squares(residual, [max(gamma, lowest + 1e-9)], bounds=([lowest], [60.0]), **tight)
    else:
        found = least_squares(residual, inside, method="lm", **tight)
    return place(found.x), 1 - float(2 * found.cost)


def _regression(values: Tensor, y: Tensor) -> tuple[float, float]:
    """a and d of the line ``a values + d`` nearest to ``y``."""
    centre, level = float(values.mean()), float(y.mean())
    centred = values - centre
    square = float(centred @ centred)
    a = float(centred @ (y - level)) / square if square > 0 else 0.0
    return a, level - a * centre

"""Coefficients of safe Padé functions that match a given function, by least squares; the fits that are shipped.

``F(x) = (a_0 + … + a_m x^m) / (1 + |b_1 x + … + b_n x^n|)``, n = m - 1 (arXiv:2409.10594, eq. 9). Published
coefficients were partly fitted to another denominator, ``1 + sum |b_j x^j|``, than the one that evaluates them, and the
GELU among them is off by 1.5. Here the odd b are 0 and the even ones are not negative: then both denominators are the
same function, without a kink, and no later change of form can part a fit from its kernel.

``python -m layersearch.primitives.rational_fit`` writes the shipped fits; a test repeats and compares them.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layersearch.errors import BadInputError
from layersearch.primitives.activations import ACTIVATIONS, Activation, activation

__all__ = ["DEGREES", "WINDOWS", "RationalFit", "fit_rational", "shipped_fit"]

DEGREES = (3, 5, 7, 9)
"""Degrees m of the numerator; the denominator has m - 1."""

WINDOWS = {name: 4.0 if name in ("relu", "leaky_relu") else 8.0 for name in ACTIVATIONS}
"""Fits hold on [-window, window]. A kink is met better on a small one; 8 holds what a normalised layer sees."""

_SHIPPED = Path(__file__).with_name("rational_fits.json")
_POINTS = 1001
_EXACT = 1e-12
_STARTS = {3: (0.1, 1.0, 10.0), 5: (0.1, 1.0, 10.0, 50.0), 7: (0.3, 10.0, 300.0), 9: (1.0, 100.0)}
"""Of each even denominator coefficient, for arguments scaled to [-1, 1]."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RationalFit:
    """Coefficients and how well they match on ``[low, high]``.

    Args:
        numerator: a_0 … a_m.
        denominator: b_1 … b_n; odd ones are 0.
        max_error, rms_error: over the points of the fit.
    """

    low: float
    high: float
    numerator: tuple[float, ...]
    denominator: tuple[float, ...]
    max_error: float
    rms_error: float

    @property
    def degree(self) -> int:
        return len(self.numerator) - 1


def _columns(s: Array, log_b: Array, degree: int) -> Array:
    """``s^i / Q(s)``, i = 0 … degree: F is linear in the numerator once the denominator is chosen."""
    q = 1 + sum(np.exp(b) * s ** (2 * (j + 1)) for j, b in enumerate(log_b))
    return np.asarray(np.stack([s**i for i in range(degree + 1)], axis=1) / q[:, None])


def _solve(columns: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """The best numerator and the residual of it."""
    a = np.asarray(np.linalg.lstsq(columns * weight[:, None], y * weight, rcond=None)[0], dtype=np.float64)
    return a, np.asarray(columns @ a - y)


def fit_rational(
    function: Activation,
    degree: int = 5,
    low: float = -8.0,
    high: float = 8.0,
    points: Sequence[float] | None = None,
) -> RationalFit:
    """The safe Padé function of ``degree`` that is nearest to ``function`` in the mean square over ``[low, high]``.

    The numerator is solved exactly for each denominator (variable projection), so only the logarithms of the even
    denominator coefficients are searched, from a fixed set of starts: the result is the same every time.

    Args:
        function: elementwise torch function.
        degree: of the numerator, odd, 3 … 9.
        points: where the match counts, e.g. quantiles of data; evenly spaced over ``[low, high]`` by default.
    Raises: BadInputError for another degree or an empty interval.
    """
    from scipy.optimize import least_squares

    if degree not in DEGREES:
        raise BadInputError(f"degree of a rational must be one of {', '.join(map(str, DEGREES))}, got {degree}")
    if not low < high:
        raise BadInputError(f"a rational is fitted on an interval with low < high, got [{low:g}, {high:g}]")
    x = np.linspace(low, high, _POINTS) if points is None else np.sort(np.asarray(points, dtype=np.float64))
    radius = float(max(abs(low), abs(high)))
    s, y = x / radius, function(torch.from_numpy(x)).numpy().astype(np.float64)
    weight = np.ones_like(s)
    powers = np.arange(degree + 1)

    none = np.full((degree - 1) // 2, -np.inf)
    a, residual = _solve(_columns(s, none, degree), y, weight)
    best, cost = none, float(np.square(residual).sum())
    if np.abs(residual).max() > _EXACT * max(1.0, radius):
        for start in itertools.product(np.log(_STARTS[degree]), repeat=len(none)):
            found = least_squares(
                lambda b: _solve(_columns(s, b, degree), y, weight)[1], start, bounds=(-30, 15), max_nfev=100
            )
            if 2 * found.cost < cost:
                best, cost = found.x, 2 * float(found.cost)
        a, residual = _solve(_columns(s, best, degree), y, weight)
    else:
        a = np.where(np.abs(a) < _EXACT * max(1.0, radius), 0.0, a).round(12)
        residual = _columns(s, none, degree) @ a - y
    denominator = np.zeros(degree - 1)
    denominator[1::2] = np.exp(best) / radius ** np.arange(2, degree, 2)
    return RationalFit(
        low=float(low),
        high=float(high),
        numerator=tuple((a / radius**powers).tolist()),
        denominator=tuple(denominator.tolist()),
        max_error=float(np.abs(residual).max()),
        rms_error=float(np.sqrt(np.square(residual).mean())),
    )


@cache
def _shipped() -> dict[str, dict[str, RationalFit]]:
    table = json.loads(_SHIPPED.read_text())
    return {name: {degree: _read(row) for degree, row in rows.items()} for name, rows in table.items()}


def _read(row: dict[str, Any]) -> RationalFit:
    return RationalFit(**row | {part: tuple(row[part]) for part in ("numerator", "denominator")})


def shipped_fit(target: str, degree: int = 5) -> RationalFit:
    """The fit of the named activation that comes with the package. Raises UnknownNameError or BadInputError."""
    name, _ = activation(target)
    if degree not in DEGREES:
        raise BadInputError(f"degree of a rational must be one of {', '.join(map(str, DEGREES))}, got {degree}")
    return _shipped()[name][str(degree)]


def _write() -> None:
    table = {
        name: {str(m): asdict(fit_rational(f, m, -WINDOWS[name], WINDOWS[name])) for m in DEGREES}
        for name, f in sorted(ACTIVATIONS.items())
    }
    _SHIPPED.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    _write()

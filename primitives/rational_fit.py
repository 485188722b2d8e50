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


class _Projected:
    """``min_a |s^i / Q(s) a - y|`` for a denominator Q given by the logarithms of its even coefficients.

    F is linear in the numerator, which is therefore solved, not searched (variable projection, Golub & Pereyra 1973);
    slopes of the residual are Kaufman's, which leave out how the solved numerator turns.
    """

    def __init__(self, s: Array, y: Array, degree: int) -> None:
        self.y = y
        self.powers = np.stack([s**i for i in range(degree + 1)], axis=1)
        self.even = self.powers[:, 2:degree:2]
        self._last: bytes = b""

    def at(self, log_b: Array) -> None:
        """Solves for this denominator."""
        if log_b.tobytes() == self._last:
            return
        self._last = log_b.tobytes()
        terms = self.even * np.exp(log_b)
        q = 1 + terms.sum(axis=1)
        columns = self.powers / q[:, None]
        ortho, upper = np.linalg.qr(columns)
        self.numerator: Array = np.asarray(np.linalg.solve(upper, ortho.T @ self.y))
        values = columns @ self.numerator
        self.residual: Array = np.asarray(values - self.y)
        slopes = -values[:, None] * terms / q[:, None]
        self.slopes: Array = np.asarray(slopes - ortho @ (ortho.T @ slopes))

    def residuals(self, log_b: Array) -> Array:
        self.at(log_b)
        return self.residual

    def jacobian(self, log_b: Array) -> Array:
        self.at(log_b)
        return self.slopes


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
    whole = _Projected(s, y, degree)
    best = np.full((degree - 1) // 2, -np.inf)
    whole.at(best)
    if np.abs(whole.residual).max() <= _EXACT * max(1.0, radius):
        a = whole.numerator.round(12)
    else:
        # Searched on a quarter of the points, and settled on all of them.
        thin = _Projected(s[::4], y[::4], degree)
        limits = {"bounds": (-30, 15), "max_nfev": 100}
        starts = itertools.product(np.log(_STARTS[degree]), repeat=len(best))
        found = min(
            (least_squares(thin.residuals, start, thin.jacobian, **limits) for start in starts), key=lambda r: r.cost
        )
        best = least_squares(whole.residuals, found.x, whole.jacobian, **limits).x
        whole.at(best)
        a = whole.numerator
    residual = whole.powers @ a / (1 + whole.even @ np.exp(best)) - y
    denominator = np.zeros(degree - 1)
    denominator[1::2] = np.exp(best) / radius ** np.arange(2, degree, 2)
    return RationalFit(
        low=float(low),
        high=float(high),
        numerator=tuple((a / radius ** np.arange(degree + 1)).tolist()),
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

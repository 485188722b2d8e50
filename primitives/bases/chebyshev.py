"""Chebyshev polynomials of the first kind."""

from dataclasses import dataclass

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State

__all__ = ["Chebyshev"]


@dataclass(frozen=True, kw_only=True)
class Chebyshev(Polynomial):
    """``T_{n+1} = 2x T_n - T_{n-1}``, ``T_1 = x``; orthogonal on [-1, 1] under 1/sqrt(1 - x²), at most 1 there."""

    name = "chebyshev"
    title = "Chebyshev polynomials, first kind"
    source = "Abramowitz & Stegun 22.7.4; as a KAN: arXiv:2405.07200, whose cos(n acos x) is replaced by the recurrence"

    def step(self, n: int, state: State) -> Step:
        return Step(2.0 if n else 1.0, 0.0, -1.0)

    def latex(self, k: int) -> str:
        return f"T_{{{k}}}(x)"


BASES.add(Chebyshev.name, Chebyshev())

"""Chebyshev polynomials of the second kind."""

from dataclasses import dataclass

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State

__all__ = ["Chebyshev2"]


@dataclass(frozen=True, kw_only=True)
class Chebyshev2(Polynomial):
    """``U_n / (n + 1)`` with ``U_{n+1} = 2x U_n - U_{n-1}``, ``U_1 = 2x``; orthogonal under sqrt(1 - x²)."""

    name = "chebyshev2"
    title = "Chebyshev polynomials, second kind"
    source = "Abramowitz & Stegun 22.7.5; divided by U_n(1) = n + 1, so that all are at most 1 on [-1, 1]"

    def step(self, n: int, state: State) -> Step:
        return Step(2 * (n + 1) / (n + 2), 0.0, -n / (n + 2))

    def latex(self, k: int) -> str:
        return rf"\frac{{U_{{{k}}}(x)}}{{{k + 1}}}"


BASES.add(Chebyshev2.name, Chebyshev2())

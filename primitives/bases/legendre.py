"""Legendre polynomials."""

from dataclasses import dataclass

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State

__all__ = ["Legendre"]


@dataclass(frozen=True, kw_only=True)
class Legendre(Polynomial):
    """``(n+1) P_{n+1} = (2n+1) x P_n - n P_{n-1}``; orthogonal on [-1, 1] under a constant weight, at most 1 there."""

    name = "legendre"
    title = "Legendre polynomials"
    source = "Abramowitz & Stegun 22.7.10"

    def step(self, n: int, state: State) -> Step:
        return Step((2 * n + 1) / (n + 1), 0.0, -n / (n + 1))

    def latex(self, k: int) -> str:
        return f"P_{{{k}}}(x)"


BASES.add(Legendre.name, Legendre())

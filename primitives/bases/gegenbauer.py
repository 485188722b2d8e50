"""Gegenbauer (ultraspherical) polynomials."""

from dataclasses import dataclass

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State, number, setting

__all__ = ["Gegenbauer"]


@dataclass(frozen=True, kw_only=True)
class Gegenbauer(Polynomial):
    """``C_n^α(x) / C_n^α(1)``; orthogonal on [-1, 1] under (1 - x²)^{α - 1/2}, at most 1 there for α > 0.

    ``(n+1) C_{n+1} = 2(n+α) x C_n - (n+2α-1) C_{n-1}``, ``C_n(1) = (2α)_n / n!``.
    """

    name = "gegenbauer"
    title = "Gegenbauer polynomials"
    source = "Abramowitz & Stegun 22.7.3; divided by C_n(1), which grows as n^{2α-1}"

    alpha: float = setting(1.5, low=0.05, high=20, about="weight exponent α; 1/2 is Legendre, 1 is Chebyshev 2")

    def step(self, n: int, state: State) -> Step:
        return Step(2 * (n + self.alpha) / (n + 2 * self.alpha), 0.0, -n / (n + 2 * self.alpha))

    def latex(self, k: int) -> str:
        symbol = rf"C_{{{k}}}^{{({number(self.alpha)})}}"
        return rf"\frac{{{symbol}(x)}}{{{symbol}(1)}}"


BASES.add(Gegenbauer.name, Gegenbauer())

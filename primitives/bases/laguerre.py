"""Laguerre functions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.primitives.bases._polynomial import Polynomial, Step, printed
from layersearch.primitives.basis import BASES, REACH, State, number, setting

__all__ = ["Laguerre"]


@dataclass(frozen=True, kw_only=True)
class Laguerre(Polynomial):
    """``L_n^α(x) exp(-x/2) / sqrt(Γ(n+α+1)/n!)`` on x >= 0; orthonormal there under x^α.

    ``(n+1) L_{n+1} = (2n+1+α-x) L_n - (n+α) L_{n-1}``. Inputs reach the half line by softplus; below 0
    they are clamped.
    """

    name = "laguerre"
    title = "Laguerre functions"
    source = (
        "Abramowitz & Stegun 22.7.12; published layers use L_n itself on tanh(x), outside its half line; ours map by "
        "softplus and carry the weight exp(-x/2)"
    )
    domain = "softplus"

    alpha: float = setting(0.0, low=-0.9, high=20, about="weight exponent α")

    @property
    def interval(self) -> tuple[float, float]:
        return (0.0, 8.0)

    @property
    def reach(self) -> tuple[float, float]:
        return (0.0, REACH)

    @property
    def flops(self) -> float:
        return 5.0 * self.degree + 11

    def weight(self, x: Tensor) -> Tensor:
        weight: Tensor = torch.exp(-0.5 * x) * math.gamma(self.alpha + 1) ** -0.5
        return weight

    def step(self, n: int, state: State) -> Step:
        a = self.alpha
        shrink = math.sqrt((n + 1) / (n + 1 + a)) / (n + 1)
        back = math.sqrt(n / (n + a)) * (n + a) * shrink if n else 0.0
        return Step(-shrink, (2 * n + 1 + a) * shrink, -back)

    def text(self, k: int, state: State, i: int = 0) -> str:
        scale = number(math.gamma(self.alpha + 1) ** -0.5)
        return f"({printed(self.coefficients(k, state))})*exp(-x/2)*{scale}"

    def latex(self, k: int) -> str:
        a = number(self.alpha)
        return rf"\sqrt{{\frac{{{k}!}}{{\Gamma({k}+{a}+1)}}}}\,L_{{{k}}}^{{({a})}}(x)\,e^{{-x/2}}"


BASES.add(Laguerre.name, Laguerre())

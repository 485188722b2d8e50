"""Laguerre functions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._polynomial import Polynomial, Step, printed
from layersearch.primitives.basis import BASES, REACH, State, number, setting

__all__ = ["Laguerre"]


@dataclass(frozen=True, kw_only=True)
class Laguerre(Polynomial):
    """``L_n^α(x) exp(-x/2) / L_n^α(0)`` on x >= 0; orthogonal there under x^α, at most 1.

    ``(n+1) L_{n+1} = (2n+1+α-x) L_n - (n+α) L_{n-1}``, ``L_n(0) = (α+1)_n / n!``. Inputs reach the half line by
    softplus; below 0 they are clamped.
    """

    name = "laguerre"
    title = "Laguerre functions"
    source = (
        "Abramowitz & Stegun 22.7.12; published layers use L_n itself on tanh(x), outside its half line; ours map by "
        "softplus and carry the weight exp(-x/2)"
    )
    domain = "softplus"
    curve = Curve(("y = exp(-0.5 * z)", "slope = -0.5 * y"))

    alpha: float = setting(0.0, low=0.0, high=20, about="weight exponent α")

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
        return torch.exp(-0.5 * x)

    def step(self, n: int, state: State) -> Step:
        over = n + 1 + self.alpha
        return Step(-1 / over, (2 * n + 1 + self.alpha) / over, -n / over)

    def text(self, k: int, state: State, i: int = 0) -> str:
        return f"({printed(self.coefficients(k, state))})*exp(-x/2)"

    def latex(self, k: int) -> str:
        symbol = rf"L_{{{k}}}^{{({number(self.alpha)})}}"
        return rf"\frac{{{symbol}(x)\,e^{{-x/2}}}}{{{symbol}(0)}}"


BASES.add(Laguerre.name, Laguerre())

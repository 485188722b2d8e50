"""Hermite functions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._polynomial import Polynomial, Step, printed
from layersearch.primitives.basis import BASES, REACH, State

__all__ = ["Hermite"]


@dataclass(frozen=True, kw_only=True)
class Hermite(Polynomial):
    """``ψ_n(x) = H_n(x) exp(-x²/2) / sqrt(2^n n! sqrt(π))``; orthonormal on the real line, at most 0.82.

    ``ψ_{n+1} = sqrt(2/(n+1)) x ψ_n - sqrt(n/(n+1)) ψ_{n-1}``. They vary over |x| < sqrt(2n+1) and decay outside.
    """

    name = "hermite"
    title = "Hermite functions"
    source = (
        "Abramowitz & Stegun 22.7.13; published layers use H_n itself on tanh(x), which grows as 2^n n!; ours carry "
        "the weight exp(-x²/2), so that no map of the inputs is needed"
    )
    domain = "none"
    curve = Curve((f"y = {math.pi**-0.25} * exp(-0.5 * z * z)", "slope = -z * y"))

    @property
    def interval(self) -> tuple[float, float]:
        return (-math.sqrt(2 * self.degree + 1), math.sqrt(2 * self.degree + 1))

    @property
    def reach(self) -> tuple[float, float]:
        return (-REACH, REACH)

    @property
    def flops(self) -> float:
        return 4.0 * self.degree + 13

    def weight(self, x: Tensor) -> Tensor:
        weight: Tensor = torch.exp(-0.5 * x * x) * math.pi**-0.25
        return weight

    def step(self, n: int, state: State) -> Step:
        return Step(math.sqrt(2 / (n + 1)), 0.0, -math.sqrt(n / (n + 1)))

    def text(self, k: int, state: State, i: int = 0) -> str:
        return f"({printed(self.coefficients(k, state))})*exp(-x**2/2)*pi**(-0.25)"

    def latex(self, k: int) -> str:
        return rf"\frac{{H_{{{k}}}(x)\,e^{{-x^2/2}}}}{{\sqrt{{2^{{{k}}}\,{k}!\,\sqrt{{\pi}}}}}}"


BASES.add(Hermite.name, Hermite())

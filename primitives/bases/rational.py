"""Safe Padé functions, shared by groups of inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.activations import ACTIVATIONS, ALIASES
from layersearch.primitives.basis import BASES, Basis, State, number, setting
from layersearch.primitives.rational_fit import DEGREES, shipped_fit

__all__ = ["Rational", "group_rational", "rational_reach"]


def rational_reach(degree: int) -> float:
    """Where the argument of a rational is clamped: 2^(100 / degree), so that x^degree stays below 2^100 in float32.

    2²⁰ for degree 5. F is nearly a straight line there, and a constant beyond.
    """
    return float(2.0 ** (100 // degree))


def group_rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """``F(x) = sum_i a_i x^i / (1 + |sum_j b_j x^j|)``, ``a`` shared by all channels, ``b`` by each group of them.

    Args:
        x: ``[..., C]``, within ``rational_reach``.
        numerator: ``[m + 1]``, a_0 … a_m.
        denominator: ``[groups, n]``, b_1 … b_n of each group; groups divides C.
    Returns: ``[..., C]``. Source: arXiv:2409.10594, eq. 9; sharing as in its parameter count and code (numerator for
    all, denominator per group), which its prose has the other way round.
    """
    groups, n = denominator.shape
    u = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    b = denominator.unsqueeze(-1)
    p = numerator[-1] * u + numerator[-2]
    for i in range(numerator.shape[0] - 3, -1, -1):
        p = p * u + numerator[i]
    q = b[:, n - 1]
    for j in range(n - 2, -1, -1):
        q = q * u + b[:, j]
    y: Tensor = p / (1 + (q * u).abs())
    return y.flatten(-2)


@dataclass(frozen=True, kw_only=True)
class Rational(Basis):
    """One function per group of inputs, ``F(x) = sum_{i<=m} a_i x^i / (1 + |sum_{j<m} b_j x^j|)``; K = 1.

    State ``numerator`` ``[m + 1]`` and ``denominator`` ``[groups, m - 1]``, both trained, start at the fit of a named
    activation (``rational_fit``). The denominator is at least 1: no poles. The number of inputs is a multiple of
    ``groups``.
    """

    name = "rational"
    title = "safe Padé functions, by groups"
    source = "KAT, arXiv:2409.10594; coefficients refitted, since the published ones do not match their evaluation"
    knob = "degree"
    domain = "none"
    kernel = "quotient"

    degree: int = setting(5, low=3, high=9, about="degree m of the numerator, odd; the denominator has m - 1")
    groups: int = setting(1, low=1, high=65536, about="number of groups of inputs")
    start: str = setting("silu", choices=(*ACTIVATIONS, *ALIASES), about="activation it starts as")
    learn: bool = setting(True, about="train the coefficients")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.degree not in DEGREES:
            raise BadInputError(f"degree of basis 'rational' must be odd, got {self.degree}; use 5")

    @property
    def learned(self) -> tuple[str, ...]:
        return ("numerator", "denominator") if self.learn else ()

    @property
    def n_functions(self) -> int:
        return 1

    @property
    def flops(self) -> float:
        return 4.0 * self.degree + 1

    @property
    def interval(self) -> tuple[float, float]:
        return (-3.0, 3.0)

    @property
    def reach(self) -> tuple[float, float]:
        return (-rational_reach(self.degree), rational_reach(self.degree))

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        if in_features % self.groups:
            raise BadInputError(
                f"groups of basis 'rational' must divide the number of inputs, got {self.groups} for {in_features}"
            )
        fit = shipped_fit(self.start, self.degree)
        return {
            "numerator": torch.tensor(fit.numerator, dtype=torch.float64),
            "denominator": torch.tensor(fit.denominator, dtype=torch.float64).repeat(self.groups, 1),
        }

    def columns(self, x: Tensor, state: State, lowering: str = "auto") -> Tensor:
        from layersearch.primitives.layers._quotient import quotient

        return quotient(x, state["numerator"], state["denominator"], -1, lowering).unsqueeze(-2)

    def _columns(self, x: Tensor, state: State) -> Tensor:
        return group_rational(x, state["numerator"], state["denominator"]).unsqueeze(-2)

    def text(self, k: int, state: State, i: int = 0) -> str:
        # The state does not know the number of inputs: ``i`` counts groups here.
        over = " + ".join(f"{number(a)}*x**{p}" for p, a in enumerate(state["numerator"]))
        under = " + ".join(f"{number(b)}*x**{p + 1}" for p, b in enumerate(state["denominator"][i]))
        return f"({over})/(1 + abs({under}))"

    def latex(self, k: int) -> str:
        m = self.degree
        return rf"\frac{{\sum_{{i=0}}^{{{m}}}a_ix^i}}{{1+\left|\sum_{{j=1}}^{{{m - 1}}}b_jx^j\right|}}"


BASES.add(Rational.name, Rational())

"""Gram (discrete Chebyshev) polynomials with learned recurrence coefficients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State, setting

__all__ = ["Gram"]


@dataclass(frozen=True, kw_only=True)
class Gram(Polynomial):
    """``p_{n+1} = x p_n - β_n p_{n-1}``, divided by ``p_n(1)`` at the initial β.

    β_n starts at ``n² (m² - n²) / (m² (4n² - 1))``, for which the p_n are orthogonal over the m points
    ``(2j - 1 - m) / m``, j = 1 … m; state ``beta`` ``[degree - 1]`` is shared by all inputs and trained.
    """

    name = "gram"
    title = "Gram polynomials"
    source = "Barnard et al. 1998; as a KAN: GRAMKAN, whose β starts near 0 (powers of x); ours starts orthogonal"

    points: int = setting(64, low=33, high=65536, about="number m of points over which they start orthogonal")
    learn: bool = setting(True, about="train β")

    @property
    def learned(self) -> tuple[str, ...]:
        return ("beta",) if self.learn else ()

    def _start(self, n: int) -> float:
        m = self.points
        return n * n * (m * m - n * n) / (m * m * (4 * n * n - 1))

    def _at_one(self, n: int) -> float:
        last, now = 0.0, 1.0
        for k in range(n):
            last, now = now, now - (self._start(k) * last if k else 0.0)
        return now

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        return {"beta": torch.tensor([self._start(n) for n in range(1, self.degree)], dtype=torch.float64)}

    def step(self, n: int, state: State) -> Step:
        after = self._at_one(n + 1)
        back: float | Tensor = -state["beta"][n - 1] * (self._at_one(n - 1) / after) if n else 0.0
        return Step(self._at_one(n) / after, 0.0, back)

    def latex(self, k: int) -> str:
        return rf"\frac{{G_{{{k}}}(x)}}{{G_{{{k}}}(1)}}"


BASES.add(Gram.name, Gram())

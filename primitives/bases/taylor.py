"""Powers of x."""

from dataclasses import dataclass

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State

__all__ = ["Taylor"]


@dataclass(frozen=True, kw_only=True)
class Taylor(Polynomial):
    """``x^n``, n = 0 … degree, on [-1, 1], where they are at most 1."""

    name = "taylor"
    title = "powers of x"
    source = "truncated Taylor series; published layers leave x unbounded, which overflows: ours map it to [-1, 1]"

    def step(self, n: int, state: State) -> Step:
        return Step(1.0, 0.0, 0.0)

    @property
    def flops(self) -> float:
        return float(self.degree)

    def latex(self, k: int) -> str:
        return f"x^{{{k}}}"


BASES.add(Taylor.name, Taylor())

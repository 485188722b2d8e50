"""Lucas polynomials."""

from dataclasses import dataclass

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State

__all__ = ["Lucas"]


def _lucas_number(n: int) -> int:
    now, following = 2, 1
    for _ in range(n):
        now, following = following, now + following
    return now


@dataclass(frozen=True, kw_only=True)
class Lucas(Polynomial):
    """``L_n(x) / L_n(1)`` with ``L_{n+1} = x L_n + L_{n-1}``, ``L_0 = 2``, ``L_1 = x``; at most 1 on [-1, 1]."""

    name = "lucas"
    title = "Lucas polynomials"
    source = "Bicknell 1970; divided by L_n(1), the Lucas numbers"

    def step(self, n: int, state: State) -> Step:
        if n == 0:
            return Step(1.0, 0.0, 0.0)
        after = _lucas_number(n + 1)
        return Step(_lucas_number(n) / after, 0.0, _lucas_number(n - 1) / after)

    def latex(self, k: int) -> str:
        return rf"\frac{{L_{{{k}}}(x)}}{{L_{{{k}}}(1)}}"


BASES.add(Lucas.name, Lucas())

"""Polynomials with coefficients that are never negative: largest at 1, and divided by that value."""

from abc import abstractmethod
from dataclasses import dataclass

from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import State

__all__ = ["Growing"]


@dataclass(frozen=True, kw_only=True)
class Growing(Polynomial):
    """``q_n(x) / q_n(1)`` for ``q_0 = 1``, ``q_{n+1} = (a x + b) q_n + c q_{n-1}`` with whole a, b, c >= 0."""

    @abstractmethod
    def factors(self, n: int) -> tuple[int, int, int]:
        """a, b, c from degree ``n`` to ``n + 1``."""

    def at_one(self, n: int) -> int:
        """``q_n(1)``; exact, since whole numbers do not overflow."""
        last, now = 0, 1
        for m in range(n):
            a, b, c = self.factors(m)
            last, now = now, (a + b) * now + c * last
        return now

    def step(self, n: int, state: State) -> Step:
        a, b, c = self.factors(n)
        before, now, after = self.at_one(n - 1) if n else 0, self.at_one(n), self.at_one(n + 1)
        return Step(a * now / after, b * now / after, c * before / after)

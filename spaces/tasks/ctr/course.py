"""When in a search gates are learned, at which temperature, and when they are reviewed instead."""

from dataclasses import dataclass

from layersearch.primitives.gates.base import HARD, Relaxation

__all__ = ["GateCourse"]


@dataclass(frozen=True)
class GateCourse:
    """Steps ``begin`` to ``end`` of a search learn gates; before them all are open, after them they are at their limit.

    Args:
        relaxation: says at which temperature each of these steps is.
    """

    begin: int
    end: int
    relaxation: Relaxation

    def temperature(self, step: int) -> float | None:
        """At which ``step`` learns gates; None if it does not."""
        if not self.begin <= step < self.end:
            return None
        steps = self.end - self.begin
        return self.relaxation.temperature(step - self.begin, steps) if steps > 1 else self.relaxation.last

    def temperature_after(self, steps: int) -> float:
        """At which a network is judged that has had ``steps`` steps: that of the last of them."""
        if steps <= self.begin:
            return self.relaxation.first
        last = self.temperature(steps - 1)
        return HARD if last is None else last

    def progress(self, step: int) -> float:
        """Share of the learning that was done before ``step``, one of it."""
        return (step - self.begin) / (self.end - self.begin)

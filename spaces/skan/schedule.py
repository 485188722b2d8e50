"""Full, selective, pruning: the stage of a training step, a function of the step and the whole horizon alone."""

from dataclasses import dataclass

from layersearch.spaces.skan.genome import SKANGenome

__all__ = ["HOT", "Schedule"]

HOT = 1.0
"""The temperature at the beginning of the selective stage."""


@dataclass(frozen=True)
class Schedule:
    """Stages of a training of ``total_steps``.

    Steps before ``select_at`` are full, those before ``prune_at`` selective; at ``prune_at`` the network is pruned, and
    the rest trains what is left. The selective stage has one step at least.
    """

    genome: SKANGenome
    total_steps: int

    @property
    def select_at(self) -> int:
        return min(round(self.total_steps * self.genome.shares[0]), self.total_steps - 1)

    @property
    def prune_at(self) -> int:
        full, selective, _ = self.genome.shares
        return min(max(round(self.total_steps * (full + selective)), self.select_at + 1), self.total_steps)

    def temperature(self, step: int) -> float | None:
        """Of the step after ``step`` ones; None in the full stage. From ``HOT`` to ``cold``, both included."""
        if step < self.select_at:
            return None
        done = min(1.0, (step - self.select_at) / max(1, self.prune_at - 1 - self.select_at))
        cold = self.genome.cold
        if self.genome.cooling == "linear":
            return HOT + (cold - HOT) * done
        return float(HOT * (cold / HOT) ** done)

"""Every candidate goes through all stages, one after the other, until one is not passed."""

from collections.abc import Mapping, Sequence

from layersearch.search.candidate import State
from layersearch.search.schedulers.base import (
    SCHEDULERS,
    Decision,
    Promotion,
    Scheduler,
    SchedulerEntry,
    Standing,
    knobs,
)
from layersearch.spaces.contracts import Objective, Stage

__all__ = ["Straight"]

_NEXT = Decision("next")


class Straight:
    """No candidate waits for another or is stopped for it."""

    watches = False

    def decide(self, standing: Standing) -> Decision:
        return _NEXT

    def promote(self) -> Promotion | None:
        return None

    def promoted(self, promotion: Promotion) -> None:
        """Nobody ever is."""

    def heard(self, standing: Standing, state: State) -> None:
        """Does not change what is decided."""


def _make(stages: Sequence[Stage], objectives: tuple[Objective, ...], given: Mapping[str, float]) -> Scheduler:
    knobs("straight", given, {})
    return Straight()


SCHEDULERS.add("straight", SchedulerEntry(_make))

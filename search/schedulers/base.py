"""What a scheduler is: after each stage it says whether a candidate goes on, waits for others, or stops."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from layersearch.errors import RecipeError
from layersearch.primitives.registry import Registry, unknown_name
from layersearch.search.candidate import State
from layersearch.spaces.contracts import Objective, Stage

__all__ = [
    "SCHEDULERS",
    "Decision",
    "Promotion",
    "Scheduler",
    "SchedulerEntry",
    "SchedulerFactory",
    "Standing",
    "knobs",
    "rung_ends",
    "whole",
]


@dataclass(frozen=True)
class Standing:
    """Where a candidate stands after a stage that it passed.

    Args:
        stage: id of that stage.
        rung: the rung that is reached with this stage, if any.
        measured: what was measured so far, natural sign: by stage id, then by objective.
        seen: how many finished candidates the driver had heard of when it proposed this one.
    """

    candidate: int
    stage: str
    rung: int | None
    measured: Mapping[str, Mapping[str, float]]
    seen: int = 0


@dataclass(frozen=True)
class Decision:
    """``pause``: the candidate waits at its rung until it is promoted. ``stop``: it is over, for ``reason``."""

    verdict: Literal["next", "pause", "stop"]
    reason: str = ""


@dataclass(frozen=True)
class Promotion:
    """A candidate that waited at ``rung`` goes on from there."""

    candidate: int
    rung: int


class Scheduler(Protocol):
    """State is a function of what it was told by ``heard`` and ``promoted``; the other methods leave it as it is.

    So a run is resumed by telling a new scheduler what was told to the old one. All promotions may be told first.
    """

    watches: bool
    """Whether it looks at what was measured; if not, nothing is read back for it on resume."""

    def decide(self, standing: Standing) -> Decision:
        """Asked after each stage that was passed, the last one excepted.

        A function of ``standing``, the promotions, and the first ``standing.seen`` finished candidates heard of.
        """
        ...

    def promote(self) -> Promotion | None:
        """Who is to go on next; if ``None``, a new candidate begins."""
        ...

    def promoted(self, promotion: Promotion) -> None:
        """A promotion was recorded."""
        ...

    def heard(self, standing: Standing, state: State) -> None:
        """A candidate has paused at ``standing.rung`` (``state`` is ``paused``) or is finished.

        In a deterministic run in the order in which candidates were begun or promoted, else in that of arrival.
        """
        ...


SchedulerFactory: TypeAlias = Callable[[Sequence[Stage], tuple[Objective, ...], Mapping[str, float]], Scheduler]
"""From the stages of the search, the objectives and the scheduler's own knobs. Raises RecipeError."""


@dataclass(frozen=True)
class SchedulerEntry:
    """One scheduler.

    Args:
        ratio: from the scheduler's knobs, how much longer a candidate is trained from one rung to the next; ``None``
            if it needs no rungs.
    """

    make: SchedulerFactory
    ratio: Callable[[Mapping[str, float]], int] | None = field(default=None)


SCHEDULERS: Registry[SchedulerEntry] = Registry("scheduler", package="layersearch.search.schedulers")
"""By the name used in recipes. A new scheduler is a new file in this folder that adds its row."""


def rung_ends(stages: Sequence[Stage]) -> dict[str, int]:
    """The rung that is reached with a stage, by stage id: the last one of each rung's stages.

    >>> rung_ends([Stage("a", "a", rung=0), Stage("b", "b", rung=0), Stage("c", "c")])
    {'b': 0}
    """
    last = {stage.rung: stage.id for stage in stages if stage.rung is not None}
    return {stage: rung for rung, stage in last.items()}


def knobs(scheduler: str, given: Mapping[str, float], defaults: Mapping[str, float]) -> dict[str, float]:
    """``defaults`` with what is ``given``. Raises: RecipeError for an unknown knob."""
    for name in given:
        full = f"scheduler.{name}"  # as it is written after --set
        if name not in defaults:
            if not defaults:
                raise RecipeError(f"scheduler '{scheduler}' has no settings, got '{full}'; leave it out")
            raise RecipeError(str(unknown_name("setting", full, [f"scheduler.{known}" for known in sorted(defaults)])))
    return {**defaults, **given}


def whole(name: str, value: float, least: int) -> int:
    """``value`` as a whole number. Raises: RecipeError if it is none, or less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1 or value < least:
        raise RecipeError(f"scheduler.{name} must be a whole number ≥ {least}, got {value!r}; change it")
    return int(value)

"""Where candidates are measured before the end of their training: the settings of rungs, and what they cut it into."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol, Self

from pydantic import Field, model_validator

from layersearch.spaces.validation import Settings

__all__ = [
    "UNCUT",
    "Cut",
    "FidelitySettings",
    "Place",
    "SteppedSettings",
    "Steps",
    "cuts",
    "early_cuts",
    "is_rung",
    "place_of",
]


@dataclass(frozen=True)
class Cut:
    """A place in a training at which something is measured; a stage ends there.

    Args:
        name: of the stage, ``quality`` or ``fitness``.
        at: what its id ends in, such as ``@133``; nothing where quality ends, and at the end of the training.
        rung: as of ``Stage``.
        steps: since the cut before.
    """

    name: str
    at: str = ""
    rung: int | None = None
    steps: int = 0

    @property
    def stage(self) -> str:
        """Id of the stage, where a candidate has one training."""
        return self.name + self.at


UNCUT = (Cut("quality"), Cut("fitness"))
"""A training without rungs; nothing is spared in it, so it tells no steps."""


def early_cuts(quality: int, rungs: Sequence[int]) -> dict[int, Cut]:
    """The cuts of a training before its end, by where they are, in rising order; they tell no steps.

    A rung at the end of quality needs no cut of its own.
    """
    found = {}
    for place in sorted({quality, *rungs}):
        name, at = ("quality", "") if place == quality else ("fitness", f"@{place}")
        found[place] = Cut(name, at, rungs.index(place) if place in rungs else None)
    return found


def cuts(quality: int, fitness: int, rungs: Sequence[int]) -> tuple[Cut, ...]:
    """The cuts of a training of ``fitness`` steps.

    >>> [(cut.stage, cut.steps, cut.rung) for cut in cuts(80, 400, (80, 133))]
    [('quality', 80, 0), ('fitness@133', 53, 1), ('fitness', 267, None)]
    """
    early = early_cuts(quality, rungs)
    steps = (end - begin for begin, end in itertools.pairwise((0, *early, fitness)))
    return tuple(replace(cut, steps=n) for cut, n in zip((*early.values(), Cut("fitness")), steps, strict=True))


def is_rung(stage: str, places: Sequence[Cut]) -> bool:
    """Whether the stage of this id, of a candidate's one training, ends at a rung."""
    return any(cut.stage == stage and cut.rung is not None for cut in places)


class Place(NamedTuple):
    """What the id of a stage says, ``name[:network][:repeat][@rung]``; what it leaves out is empty."""

    name: str
    network: str = ""
    repeat: str = ""
    rung: str = ""


def place_of(stage: str) -> Place:
    """The parts of a stage's id; a repeat is a number, a network is not.

    >>> place_of("fitness:resnet@133")
    Place(name='fitness', network='resnet', repeat='', rung='133')
    >>> place_of("rerank:resnet:0")
    Place(name='rerank', network='resnet', repeat='0', rung='')
    >>> place_of("rerank:0")
    Place(name='rerank', network='', repeat='0', rung='')
    """
    head, _, rung = stage.partition("@")
    name, *rest = head.split(":")
    repeat = rest.pop() if rest and rest[-1].isdecimal() else ""
    return Place(name, ":".join(rest), repeat, rung)


class FidelitySettings(Settings):
    """Where candidates are measured before the end of their training, for schedulers that compare them early.

    Args:
        ratio: 0 for nowhere; else after the quality steps, where candidates are measured anyway, and at those steps
            ``task.fitness_steps / ratio**i`` that are later by a factor of √ratio at least.
        rungs: at these training steps instead, in rising order.
    """

    ratio: int = Field(0, ge=0, le=1000)
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = ()

    def check(self, end: int, where: str) -> None:
        """Raises: ValueError in one sentence unless there is a ratio, or none, and rungs rise and are before ``end``.

        Args:
            where: what ``end`` is called.
        """
        if list(self.rungs) != sorted(set(self.rungs)) or (self.rungs and self.rungs[-1] >= end):
            given = ", ".join(map(str, self.rungs))
            raise ValueError(f"fidelity.rungs must rise and end before {where}, got {given}")
        if self.ratio == 1:
            raise ValueError("fidelity.ratio must be 0 or at least 2, got 1")


class Steps(Protocol):
    """How long a training of the search is, and its first part."""

    @property
    def quality_steps(self) -> int: ...

    @property
    def fitness_steps(self) -> int: ...


class SteppedSettings(Settings):
    """What settings of a run have in common where rungs are training steps; each says where the two parts stand."""

    if TYPE_CHECKING:
        fidelity: FidelitySettings
        task: Steps

    @model_validator(mode="after")
    def _rungs_before_the_end(self) -> Self:
        steps = self.task.fitness_steps
        self.fidelity.check(steps, f"step {steps} of the training")
        return self

    @property
    def _parts(self) -> tuple[int, int]:
        return self.task.quality_steps, self.task.fitness_steps

    @property
    def rung_steps(self) -> tuple[int, ...]:
        """Training steps at which candidates are measured early, in rising order."""
        given, ratio, quality, end = self.fidelity.rungs, self.fidelity.ratio, *self._parts
        if given or not ratio or quality >= end:
            return given
        rungs = [quality]
        while (step := end // ratio ** len(rungs)) >= quality * math.sqrt(ratio):
            rungs.append(step)
        return tuple(sorted(rungs))

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Of a training."""
        return cuts(*self._parts, self.rung_steps) if self.rung_steps else UNCUT

    def described_rungs(self) -> tuple[tuple[str, str], ...]:
        """What ``Space.describe`` says of rungs: one row, or none."""
        return (("rungs", f"also after {', '.join(map(str, self.rung_steps))} steps"),) if self.rung_steps else ()

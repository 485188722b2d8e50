"""What settings of a training share, whatever it learns from. Fields, and their order, are those of each."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias

from pydantic import ConfigDict

from layersearch.spaces.validation import Settings, checked

__all__ = ["Schedule", "TrainingSettings", "annealed", "check_rules", "rules_of_parts"]

Schedule: TypeAlias = Literal["constant", "cosine"]
Rule: TypeAlias = tuple[bool, str]


class TrainingSettings(Settings):
    """Settings of which each value has the type that it is declared with."""

    model_config = ConfigDict(strict=True)
    not_of_training: ClassVar[frozenset[str]]
    """Fields that a training does not depend on, or that are compared by themselves."""

    def fingerprint(self) -> str:
        """Equal for settings that train alike; a checkpoint is continued under no others."""
        text = self.model_dump_json(exclude=set(self.not_of_training))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain values, as of JSON. Raises: RecipeError or UnknownNameError with one sentence."""
        return checked(cls, values)

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, checked as a whole. Raises: as ``parse``."""
        return self.parse({**self.model_dump(), **changes})


class _OfParts(Protocol):
    @property
    def quality_steps(self) -> int: ...

    @property
    def fitness_steps(self) -> int: ...

    @property
    def validation_fraction(self) -> float: ...

    @property
    def holdout_fraction(self) -> float: ...


def rules_of_parts(settings: _OfParts) -> list[Rule]:
    """Rules for horizons and for parts of the published training set: whether each holds, and what it says."""
    held_back = settings.validation_fraction + settings.holdout_fraction
    return [
        (
            settings.quality_steps <= settings.fitness_steps,
            f"quality_steps must be at most fitness_steps, got {settings.quality_steps} > {settings.fitness_steps}",
        ),
        (held_back < 1, f"validation_fraction + holdout_fraction must be less than 1, got {held_back:g}"),
    ]


def check_rules(rules: list[Rule]) -> None:
    """Raises: ValueError with the first rule that does not hold."""
    for holds, rule in rules:
        if not holds:
            raise ValueError(rule)


def annealed(rate: float, schedule: Schedule, step: int, total_steps: int) -> float:
    """η, or η·(1 + cos(π·step/total))/2: a function of the step and the whole horizon alone."""
    return rate if schedule == "constant" else rate * (1 + math.cos(math.pi * step / total_steps)) / 2

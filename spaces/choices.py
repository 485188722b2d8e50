"""What the tables of choices of several spaces have in common."""

import random
from dataclasses import dataclass
from typing import Generic, TypeVar

from layersearch.spaces.contracts import Trial

__all__ = ["AnyOf"]

V = TypeVar("V", bound=int | float | str | bool)


@dataclass(frozen=True)
class AnyOf(Generic[V]):
    """One of several values."""

    values: tuple[V, ...]

    def holds(self, value: object) -> bool:
        return any(value == v and type(value) is type(v) for v in self.values)

    def draw(self, rng: random.Random) -> V:
        return rng.choice(self.values)

    def ask(self, trial: Trial, name: str) -> V:
        answer: V = trial.suggest_categorical(name, self.values)
        return answer

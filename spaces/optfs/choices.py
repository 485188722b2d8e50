"""What there is to choose in a genome: one table that sampling, mutation, suggestion and reading share."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from layersearch.primitives.ctr.interactions import OPERATORS
from layersearch.primitives.gates.base import RELAXATIONS
from layersearch.spaces.choices import AnyOf
from layersearch.spaces.contracts import Trial
from layersearch.spaces.tasks.ctr.models.base import MODELS

__all__ = [
    "CONTROLS",
    "GATES_OF",
    "LEAST_RATIO",
    "LIMITS",
    "NO_GATES",
    "OF_PAIRS",
    "OWN",
    "PRESSURES",
    "Choice",
    "OneOf",
    "Real",
    "Value",
    "grain",
]

Value: TypeAlias = int | float | str

GATES_OF: Mapping[str, tuple[str, ...]] = {
    "field": ("field",),
    "field+pair": ("field", "pair"),
    "pair": ("pair",),
    "product": ("product",),
    "value": ("value",),
    "value+pair": ("value", "pair"),
}
"""Kinds of gates by granularity."""

NO_GATES = "none"
"""The full model."""
OF_PAIRS = frozenset(("pair", "product"))
"""Kinds of gates that shut interactions of pairs and leave all rows of the table."""
CONTROLS: Mapping[str, tuple[str, str]] = {
    "frequency": ("frequency", "value"),
    "product-frequency": ("frequency", "product"),
    "product-random": ("random", "product"),
    "random": ("random", "value"),
}
"""Selections that are not learned: the most frequent values, or any, at a given ratio, and the kind of gates that they
stand at."""
LEAST_RATIO = 1e-6
"""Of values, or of pairs of fields, that a genome can name: in place of 0, it keeps no pair."""
OWN = "own"
"""The operator of a model that has one of its own."""
PRESSURES = ("price", "ratio")
"""What shuts gates: a price on each open one, or the ratio that is to be kept."""


@dataclass(frozen=True)
class Real:
    """Numbers from ``low`` to ``high``, of which ratios matter."""

    low: float
    high: float

    def holds(self, value: object) -> bool:
        return isinstance(value, float) and self.low <= value <= self.high

    def draw(self, rng: random.Random) -> float:
        return self._inside(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def near(self, value: Any, rng: random.Random) -> float:
        """Another one, most often less than half as much away."""
        return self._inside(value * math.exp(rng.gauss(0.0, 0.4)))

    def ask(self, trial: Trial, name: str) -> float:
        return float(trial.suggest_float(name, self.low, self.high, log=True))

    def nearest(self, value: Any) -> float:
        return self._inside(float(value))

    def _inside(self, value: float) -> float:
        # Few digits, so that genomes can be read, and their JSON is short.
        return min(self.high, max(self.low, float(f"{value:.4g}")))

    def __str__(self) -> str:
        return f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class OneOf(AnyOf[Value]):
    """One of several values of one type; numbers are in rising order."""

    def near(self, value: Any, rng: random.Random) -> Value:
        """Another one if there is one; of numbers a neighbour."""
        if value in self.values and not isinstance(value, str):
            place = self.values.index(value)
            neighbours = self.values[max(0, place - 1) : place] + self.values[place + 1 : place + 2]
            return rng.choice(neighbours or self.values)
        return rng.choice([v for v in self.values if v != value] or self.values)

    def nearest(self, value: Any) -> Value:
        """``value`` if it is one of them; else the closest number, or the first text."""
        if value in self.values or isinstance(value, str):
            return value if value in self.values else self.values[0]
        return min(self.values, key=lambda v: abs(math.log(max(float(v), 0.5) / max(float(value), 0.5))))

    def __str__(self) -> str:
        first, last = self.values[0], self.values[-1]
        if isinstance(first, int) and isinstance(last, int) and self.values == tuple(range(first, last + 1)):
            return f"a whole number in [{first}, {last}]"
        return f"one of {', '.join(map(str, self.values))}"


Choice: TypeAlias = Real | OneOf

LIMITS: Mapping[str, Choice] = {
    "model": OneOf(tuple(MODELS)),
    "gates": OneOf((*CONTROLS, *GATES_OF, NO_GATES)),
    "relaxation": OneOf(tuple(RELAXATIONS)),
    "operator": OneOf((*OPERATORS, OWN)),
    "pressure": OneOf(PRESSURES),
    "price": Real(1e-3, 1e4),
    "ratio": Real(LEAST_RATIO, 1.0),
    "temperature": Real(2.0, 1e5),
    "lr": Real(1e-6, 1.0),
    "dim": OneOf(tuple(range(1, 257))),
    "search_epochs": OneOf(tuple(range(2, 101))),
    "rewind_epoch": OneOf(tuple(range(100))),
}
"""What a genome may hold, whatever a run searches."""


def grain(model: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the granularities ``names`` that have a place in a model."""
    has_pairs = MODELS[model].has_pairs
    return tuple(name for name in names if has_pairs or OF_PAIRS.isdisjoint(GATES_OF[name]))

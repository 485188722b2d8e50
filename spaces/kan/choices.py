"""What there is to choose in a genome: one table that sampling, mutation, suggestion and the reader of genomes share.

A basis that is added to ``BASES`` is in the table at once, with its knob and whether its own tensors are trained;
``_MORE`` and ``_INSTEAD`` say what else is worth choosing.
"""

import functools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from layersearch.primitives.basis import BASES
from layersearch.primitives.layers.init import INITS
from layersearch.spaces.choices import AnyOf
from layersearch.spaces.contracts import Trial

__all__ = [
    "BASE_BRANCHES",
    "INIT_NAMES",
    "MLP",
    "NONE",
    "Choice",
    "OneOf",
    "Value",
    "Whole",
    "domains_of",
    "settings_of",
]

Value: TypeAlias = int | float | str | bool

MLP = "mlp"
"""In place of a basis: linear layers with an activation between them."""
NONE = "none"


@dataclass(frozen=True)
class Whole:
    """Whole numbers from ``low`` to ``high``; with ``log`` ratios matter, not differences."""

    low: int
    high: int
    log: bool = False

    def holds(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def draw(self, rng: random.Random) -> int:
        if not self.log:
            return rng.randint(self.low, self.high)
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(self.high, max(self.low, round(drawn)))

    def near(self, value: int, rng: random.Random) -> int:
        """Another number not far off, if there is one."""
        step = max(1, round(value * rng.choice((0.1, 0.25, 0.5)))) if self.log else rng.choice((1, 1, 2))
        moved = min(self.high, max(self.low, value + rng.choice((-step, step))))
        return moved if moved != value else self.draw(rng)

    def ask(self, trial: Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def __str__(self) -> str:
        return f"a whole number in [{self.low}, {self.high}]"


@dataclass(frozen=True)
class OneOf(AnyOf[Value]):
    """One of several values, all of one type."""

    def near(self, value: Value, rng: random.Random) -> Value:
        """Another one, if there is one."""
        return rng.choice([v for v in self.values if v != value] or [value])

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"


Choice: TypeAlias = Whole | OneOf

BASE_BRANCHES = OneOf((NONE, "gelu", "identity", "silu", "tanh"))
"""Activations of the base branch; of an ``MLP`` the activation between layers, where ``none`` is not among them."""
INIT_NAMES = OneOf(INITS)
"""Starts that a genome may have; those that a run draws from are ``network.inits``."""

_DOMAINS = ("clamp", "layernorm", "minmax", NONE, "tanh")
_KNOBS = {"degree": Whole(2, 12), "grid": Whole(3, 32, log=True)}
_MORE: dict[str, dict[str, Choice]] = {
    "bspline": {"order": Whole(2, 4)},
    "fourier": {"frequency": OneOf((0.5, 1.0, 2.0, 3.0))},
    "rational": {"groups": OneOf((1, 2, 4, 8)), "start": OneOf(("gelu", "identity", "relu", "silu", "tanh"))},
    "rbf": {"width": OneOf((0.5, 1.0, 2.0))},
    "relu": {"order": Whole(1, 4)},
}
_INSTEAD: dict[str, dict[str, Choice]] = {
    "fourier": {"grid": Whole(1, 16)},
    "rational": {"degree": OneOf((3, 5, 7, 9)), "learn": OneOf((True,))},
    "sine": {"grid": Whole(2, 16)},
}


@functools.cache
def settings_of(basis: str) -> Mapping[str, Choice]:
    """What can be chosen of a basis, by setting, in sorted order. Raises: UnknownNameError."""
    if basis == MLP:
        return {}
    row = BASES[basis]
    found: dict[str, Choice] = {row.knob: _KNOBS[row.knob], **_MORE.get(basis, {})}
    if "learn" in row.settings():
        found["learn"] = OneOf((False, True))
    found |= _INSTEAD.get(basis, {})
    return dict(sorted(found.items()))


@functools.cache
def domains_of(basis: str) -> OneOf:
    """Maps of the inputs that go with a basis: its own and those that suit all."""
    if basis == MLP:
        return OneOf((NONE,))
    return OneOf(tuple(sorted({*_DOMAINS, BASES[basis].domain})))

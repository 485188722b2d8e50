"""What there is to choose in the model around the layers: one table for sampling, mutation and suggestion."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from layersearch.spaces.contracts import Trial
from layersearch.spaces.kan.choices import Choice, OneOf, Whole
from layersearch.spaces.kan.images.genome import CONV, HEADS, KAT, KERNELS, POOLS

__all__ = ["HEAD", "Multiples", "ShapeLimits", "patches"]

HEAD = "head"
_LEAST_TOKENS, _MOST_TOKENS = 4, 100


@dataclass(frozen=True)
class Multiples(Whole):
    """Multiples of ``step`` from ``low`` to ``high``, themselves such; ratios matter, not differences."""

    step: int = 1

    @property
    def _units(self) -> Whole:
        return Whole(self.low // self.step, self.high // self.step, log=True)

    def holds(self, value: object) -> bool:
        return super().holds(value) and isinstance(value, int) and value % self.step == 0

    def draw(self, rng: random.Random) -> int:
        return self.step * self._units.draw(rng)

    def near(self, value: int, rng: random.Random) -> int:
        return self.step * self._units.near(value // self.step, rng)

    def ask(self, trial: Trial, name: str) -> int:
        """In units of ``step``."""
        return self.step * self._units.ask(trial, name)

    def answer(self, value: int) -> int:
        """What a sampler says for ``value``."""
        return value // self.step

    def __str__(self) -> str:
        return f"a multiple of {self.step} in [{self.low}, {self.high}]"


def patches(side: int) -> tuple[int, ...]:
    """Sides of patches that cut an image of ``side`` into 4 to 100 tokens."""
    return tuple(p for p in range(1, side) if side % p == 0 and _LEAST_TOKENS <= (side // p) ** 2 <= _MOST_TOKENS)


@dataclass(frozen=True)
class ShapeLimits:
    """Which models may be built.

    Args:
        side: of the images.
        max_channels: of stem and blocks.
        max_blocks: of a convolutional network; there are two at least.
        max_width: of tokens; the feed-forward part is at most four times as wide.
        max_depth: blocks of a transformer. Both are the least there may be where no transformers are searched.
    """

    side: int
    max_channels: int
    max_blocks: int
    max_width: int = 8
    max_depth: int = 1

    @property
    def channels(self) -> Multiples:
        return Multiples(4, self.max_channels, step=4)

    @property
    def blocks(self) -> Whole:
        return Whole(2, self.max_blocks)

    def of(self, kind: str) -> Mapping[str, Choice]:
        """Choices of the numbers that every shape of a kind has, by name."""
        if kind == CONV:
            return {"stem": self.channels, "kernel": KERNELS, "pool": OneOf(POOLS), HEAD: HEADS}
        assert kind == KAT, f"a kind is one of {CONV} and {KAT}"
        return {
            "patch": OneOf(patches(self.side)),
            "width": Multiples(8, self.max_width, step=8),
            "depth": Whole(1, self.max_depth),
            "heads": OneOf((1, 2, 4)),
            "hidden": Multiples(8, 4 * self.max_width, step=8),
            HEAD: HEADS,
        }

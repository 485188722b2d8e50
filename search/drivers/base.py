"""What a driver is: it proposes candidates and hears what became of them."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

from layersearch.primitives.registry import Registry
from layersearch.search.candidate import State
from layersearch.spaces.contracts import Genome, Space

__all__ = ["DRIVERS", "Driver", "DriverFactory", "Proposal", "Told"]


@dataclass(frozen=True)
class Proposal:
    """A genome to try. ``parents`` are numbers of candidates; ``name`` is that of a known layer used as a seed."""

    genome: Genome
    origin: Literal["seed", "random", "evolved"]
    parents: tuple[int, ...] = ()
    name: str | None = None


@dataclass(frozen=True)
class Told:
    """What became of the candidate of one slot. ``fitness`` (natural sign, finite) is that of an evaluated one.

    ``metrics`` holds what was measured last of each objective, of one that was ``stopped`` before its training was
    over: by the scheduler, or at the end of the search. It is not comparable with a fitness.
    """

    slot: int
    candidate: int
    state: State
    fitness: Mapping[str, float]
    load: Callable[[], Genome] = field(repr=False, compare=False)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def genome(self) -> Genome:
        """Read from the store when first asked for: most of a long run's genomes are never looked at again."""
        return self.load()


class Driver(Protocol):
    """State is a function of the sequence of tells alone; ``ask`` leaves it as it is.

    So a run is resumed by telling a new driver what was told to the old one.
    """

    def ask(self, slot: int, rng: random.Random) -> Iterator[Proposal]:
        """Proposals for one slot, without end: the first that is legal and new is taken."""
        ...

    def tell(self, told: Told) -> None: ...


DriverFactory: TypeAlias = Callable[[Space, int, Mapping[str, float]], Driver]
"""From space, population and the driver's own knobs. Raises RecipeError for an unknown or illegal knob."""

DRIVERS: Registry[DriverFactory] = Registry("driver", package="layersearch.search.drivers")
"""By the name used in recipes. A new driver is a new file in this folder that adds its row."""

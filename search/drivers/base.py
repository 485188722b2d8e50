"""What a driver is: it proposes candidates and hears what became of them."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from layersearch.primitives.registry import Registry
from layersearch.search.candidate import State
from layersearch.spaces.contracts import Genome, Space

__all__ = ["DRIVERS", "Driver", "DriverFactory", "Proposal", "RememberingDriver", "Told"]


@dataclass(frozen=True)
class Proposal:
    """A genome to try. ``parents`` are numbers of candidates; ``name`` is that of a known layer used as a seed."""

    genome: Genome
    origin: Literal["seed", "random", "evolved", "suggested"]
    parents: tuple[int, ...] = ()
    name: str | None = None


@dataclass(frozen=True)
class Told:
    """What became of a candidate.

    Args:
        fitness: of an evaluated candidate, natural sign, finite.
        load: reads the genome.
        n_passed: how many of the search's stages it passed.
        duplicate_of: number of the earlier candidate that is the same function, of one turned away for that.
        metrics: what was measured last of each objective, of one that was ``stopped`` before its training was over: by
            the scheduler, or at the end of the search. It is not comparable with a fitness.
    """

    slot: int
    candidate: int
    state: State
    fitness: Mapping[str, float]
    load: Callable[[], Genome] = field(repr=False, compare=False)
    n_passed: int = 0
    duplicate_of: int | None = None
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


@runtime_checkable
class RememberingDriver(Driver, Protocol):
    """A driver whose state also depends on what it proposed: it is a function of asks and tells, in their order.

    So a run is resumed by ``recall`` in place of every ``ask``, between the same tells.
    """

    def turned_away(self, told: Told) -> None:
        """The latest proposal for its slot is screened out or a duplicate; comes before the next one is asked for."""
        ...

    def recall(self, slot: int, rng: random.Random, recorded: Sequence[Told], check: bool) -> None:
        """Asks for one slot as it was asked for before; ``recorded`` is what came of it, the last one in flight.

        Args:
            check: whether to work out again what is recorded, which takes as long as it did.
        Raises: StoreError if another genome is proposed than is recorded.
        """
        ...


DriverFactory: TypeAlias = Callable[[Space, int, Mapping[str, float | str]], Driver]
"""From space, population and the driver's own knobs. Raises RecipeError for an unknown or illegal knob."""

DRIVERS: Registry[DriverFactory] = Registry("driver", package="layersearch.search.drivers")
"""By the name used in recipes. A new driver is a new file in this folder that adds its row."""

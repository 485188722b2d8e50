"""The control that every driver has to beat: the same known layers first, then fresh random genomes."""

import random
from collections.abc import Iterator, Mapping

from layersearch.search.drivers._common import knobs, seed_proposals
from layersearch.search.drivers.base import DRIVERS, Driver, Proposal, Told
from layersearch.spaces.contracts import Space

__all__ = ["RandomSearch"]


class RandomSearch:
    """Random search; learns nothing from what it is told."""

    def __init__(self, space: Space, population: int) -> None:
        self._space = space
        self._seeds = seed_proposals(space, population)

    def ask(self, slot: int, rng: random.Random) -> Iterator[Proposal]:
        if slot < len(self._seeds):
            yield self._seeds[slot]
        while True:
            yield Proposal(self._space.sample(rng), "random")

    def tell(self, told: Told) -> None:
        """Does not change what is proposed."""


def _make(space: Space, population: int, given: Mapping[str, float | str]) -> Driver:
    knobs("random", given, {})
    return RandomSearch(space, population)


DRIVERS.add("random", _make)

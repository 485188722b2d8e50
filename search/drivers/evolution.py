"""Regularized evolution: mutants of tournament winners among the youngest evaluated candidates."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from layersearch.search.drivers._common import knobs, seed_proposals
from layersearch.search.drivers.base import DRIVERS, Driver, Proposal, Told
from layersearch.spaces.contracts import Genome, Objective, Space

__all__ = ["Evolution", "tournament_size"]

_TRIES_PER_STEP = 20
_MOST_STEPS = 3
_MOST_MUTANTS = 200

Select = Callable[[Sequence[Told], int, tuple[Objective, ...], random.Random], Told]


def tournament_size(population: int) -> int:
    """5 % of the population, at least 2 where there are as many."""
    return min(population, max(2, round(0.05 * population)))


class Evolution:
    """Aging tournament with a Pareto winner (Real et al. 2019, arXiv:1802.01548; Liu et al. 2020, arXiv:2004.02967).

    The population is the ``population`` most recently evaluated candidates, however good. Known layers and random
    genomes come first, until a share ``warmup`` of that many were evaluated; then each slot gets mutants of one parent.
    A mutant that is illegal or known costs a try: after 20 tries mutants are two steps away, after 40 three, and after
    200 tries random genomes take their place (unlike the sources, which evaluate silent mutants again).

    Args:
        select: draws the parent from population, tournament size, objectives and the slot's generator.
        p_random: share of slots that get a fresh random genome instead.
        warmup: 1 in the sources. Few random layers pass the funnel, so a small budget would go into the first filling:
            one evaluated random layer cost the rejection of 40 others on digits (2026-11-25).
    """

    def __init__(
        self, space: Space, population: int, select: Select, p_random: float = 0.1, warmup: float = 0.5
    ) -> None:
        self._space = space
        self._size = population
        self._select = select
        self._p_random = p_random
        self._enough = max(1, round(warmup * population))
        self._seeds = seed_proposals(space, population)
        self._population: deque[Told] = deque(maxlen=population)

    def ask(self, slot: int, rng: random.Random) -> Iterator[Proposal]:
        if slot < len(self._seeds):
            yield self._seeds[slot]
        filling = slot < len(self._seeds) or len(self._population) < self._enough
        if not filling and rng.random() >= self._p_random:
            parent = self._select(self._population, tournament_size(self._size), self._space.objectives, rng)
            for tries in range(_MOST_MUTANTS):
                steps = min(_MOST_STEPS, 1 + tries // _TRIES_PER_STEP)
                yield Proposal(self._mutant(parent.genome, steps, rng), "evolved", (parent.candidate,))
        while True:
            yield Proposal(self._space.sample(rng), "random")

    def _mutant(self, genome: Genome, steps: int, rng: random.Random) -> Genome:
        for _ in range(steps):
            genome = self._space.mutate(genome, rng)
        return genome

    def tell(self, told: Told) -> None:
        """Only what was trained to the end gets in: early measurements of others cannot be compared with its fitness,
        and under a scheduler those that were not promoted are the worse ones."""
        if told.state == "evaluated":
            self._population.append(told)


def _make(space: Space, population: int, given: Mapping[str, float | str]) -> Driver:
    from layersearch.search.drivers._tournament import pareto_tournament  # loads deap

    return Evolution(
        space, population, pareto_tournament, **knobs("evolution", given, {"p_random": 0.1, "warmup": 0.5})
    )


DRIVERS.add("evolution", _make)

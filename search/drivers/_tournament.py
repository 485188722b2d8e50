"""Tournament selection with DEAP's drawing and non-dominated sorting."""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from deap import base, tools

from layersearch.search.drivers.base import Told
from layersearch.spaces.contracts import Objective

__all__ = ["pareto_tournament"]


@cache
def _fitness_class(signs: tuple[int, ...]) -> type[Any]:
    """A DEAP fitness with these weights; not from ``deap.creator``, which is global and can be overwritten."""
    return type("Fitness", (base.Fitness,), {"weights": signs})


@dataclass(frozen=True)
class _Entrant:
    told: Told
    fitness: Any


@contextmanager
def _global_random(rng: random.Random) -> Iterator[None]:
    """DEAP draws from the global generator: it gets a state from ``rng`` and its own one back."""
    before = random.getstate()
    random.seed(rng.getrandbits(64))
    try:
        yield
    finally:
        random.setstate(before)


def pareto_tournament(
    population: Sequence[Told], size: int, objectives: tuple[Objective, ...], rng: random.Random
) -> Told:
    """A random member of the Pareto front of ``size`` members drawn from ``population`` with replacement.

    Raises: AssertionError if a fitness is not finite: DEAP takes NaN for the best.
    """
    fitness = _fitness_class(tuple(o.sign for o in objectives))
    with _global_random(rng):
        drawn = tools.selRandom(range(len(population)), size)
        entrants = []
        # Drawn twice is entered once: the front is a set, its members are to be equally likely.
        for told in (population[i] for i in dict.fromkeys(drawn)):
            values = [told.fitness[o.name] for o in objectives]
            assert all(map(math.isfinite, values)), f"candidate {told.candidate} has a fitness that is not finite"
            entrants.append(_Entrant(told, fitness(values)))
        winner = tools.selRandom(_front(entrants), 1)[0]
        assert isinstance(winner, _Entrant)
        return winner.told


def _front(entrants: list[_Entrant]) -> list[_Entrant]:
    if len(entrants[0].fitness.wvalues) == 1:  # sortLogNondominated needs at least two objectives
        best = max(e.fitness.wvalues for e in entrants)
        return [e for e in entrants if e.fitness.wvalues == best]
    front: list[_Entrant] = tools.sortLogNondominated(entrants, len(entrants), first_front_only=True)
    return front

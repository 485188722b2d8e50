"""Evolution: from known layers and random genomes to mutants of the young and good."""

import random
from itertools import islice

from toy_space import ToySpace

from layersearch.search.drivers.base import DRIVERS, Driver, Told


class Steps(ToySpace):
    """Each mutation adds one, so that a mutant tells how many steps it is away."""

    def mutate(self, genome: int, rng: random.Random) -> int:
        return genome + 1


def told(slot: int, genome: int, value: float, state: str = "evaluated") -> Told:
    fitness = {"o0": value, "o1": -value} if state == "evaluated" else {}
    return Told(slot, 100 + slot, state, fitness, lambda: genome)  # type: ignore[arg-type]


def full(driver: Driver, n: int = 4) -> Driver:
    for slot in range(n):
        driver.tell(told(slot, 1000 * (slot + 1), float(slot)))
    return driver


def make(p_random: float = 0.0, population: int = 4, warmup: float = 1.0) -> Driver:
    return DRIVERS["evolution"](Steps(), population, {"p_random": p_random, "warmup": warmup})


def test_mutants_move_away_and_give_way_to_random_genomes() -> None:
    proposals = list(islice(full(make()).ask(9, random.Random(0)), 230))
    (parent,) = {p.parents for p in proposals[:200]}
    genome = 1000 * (parent[0] - 99)
    assert [p.genome - genome for p in proposals[:200]] == [1] * 20 + [2] * 20 + [3] * 160
    assert {p.origin for p in proposals[:200]} == {"evolved"}
    assert {(p.origin, p.parents) for p in proposals[200:]} == {("random", ())}


def test_random_until_the_population_is_full_of_evaluated_candidates() -> None:
    driver = full(make(), 3)
    for slot in range(20):
        driver.tell(told(slot, 5, 0.0, "rejected"))
        driver.tell(told(slot, 5, 0.0, "failed"))
    assert next(iter(driver.ask(30, random.Random(0)))).origin == "random"
    driver.tell(told(50, 7, 0.0))
    assert next(iter(driver.ask(30, random.Random(0)))).origin == "evolved"


def test_evolution_begins_with_a_share_of_the_population() -> None:
    half = make(warmup=0.5)
    assert next(iter(full(half, 1).ask(9, random.Random(0)))).origin == "random"
    assert next(iter(full(make(warmup=0.5), 2).ask(9, random.Random(0)))).origin == "evolved"


def test_the_oldest_leave_however_good_they_are() -> None:
    driver = make()
    driver.tell(told(99, 5, 1e9))
    full(driver, 3)
    assert (199,) in {next(iter(driver.ask(9, random.Random(seed)))).parents for seed in range(50)}
    driver.tell(told(3, 4000, 3.0))
    parents = {next(iter(driver.ask(9, random.Random(seed)))).parents[0] for seed in range(200)}
    assert parents == {100, 101, 102, 103}


def test_better_parents_win_more_often() -> None:
    driver = full(make())
    wins = [next(iter(driver.ask(9, random.Random(seed)))).parents[0] - 100 for seed in range(400)]
    # Tournaments of two out of four: the best wins with odds 7/16, the worst with 1/16; ± 6 standard deviations.
    assert 400 * 7 / 16 - 60 < wins.count(3) < 400 * 7 / 16 + 60
    assert wins.count(0) < 60


def test_p_random_is_the_share_of_fresh_genomes() -> None:
    driver = full(make(p_random=0.25))
    fresh = sum(next(iter(driver.ask(9, random.Random(seed)))).origin == "random" for seed in range(400))
    assert 48 < fresh < 152  # 100 ± 6 standard deviations

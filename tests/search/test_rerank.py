"""The order of candidates, and the winner."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layersearch.search.candidate import StageResult
from layersearch.search.drivers._tournament import pareto_tournament
from layersearch.search.drivers.base import Told
from layersearch.search.drivers.evolution import tournament_size
from layersearch.search.rerank import mean_value, pareto_front, ranked, rerank_value, spread, winner
from layersearch.spaces.contracts import Objective, Outcome

OBJECTIVES = (Objective("a"), Objective("b", maximize=False))


def values(pairs: list[tuple[int, int]]) -> dict[int, dict[str, float]]:
    return {n: {"a": float(a), "b": float(b)} for n, (a, b) in enumerate(pairs)}


def dominates(x: tuple[int, int], y: tuple[int, int]) -> bool:
    return x[0] >= y[0] and x[1] <= y[1] and x != y


PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@given(PAIRS)
def test_the_front_is_what_nothing_dominates(pairs: list[tuple[int, int]]) -> None:
    expected = [n for n, mine in enumerate(pairs) if not any(dominates(other, mine) for other in pairs)]
    assert sorted(pareto_front(values(pairs), OBJECTIVES)) == expected


@given(PAIRS)
def test_the_order_is_that_of_the_means_and_begins_on_the_front(pairs: list[tuple[int, int]]) -> None:
    order = ranked(values(pairs), OBJECTIVES)
    means = [pairs[i][0] - pairs[i][1] for i in order]
    assert sorted(order) == list(range(len(pairs)))
    assert means == sorted(means, reverse=True)
    assert order[0] == pareto_front(values(pairs), OBJECTIVES)[0]


@given(PAIRS, st.integers(0, 99))
def test_the_parent_is_on_the_front_of_its_tournament(pairs: list[tuple[int, int]], seed: int) -> None:
    """A tournament far larger than the population draws all of it (missing one: < 12 · (11/12)^600 < 1e-21)."""
    population = [
        Told(n, n, "evaluated", fitness, lambda n=n: n)  # type: ignore[misc]
        for n, fitness in values(pairs).items()
    ]
    front = pareto_front(values(pairs), OBJECTIVES)
    assert pareto_tournament(population, 600, OBJECTIVES, random.Random(seed)).candidate in front
    best = max(a for a, _ in pairs)
    assert pairs[pareto_tournament(population, 600, OBJECTIVES[:1], random.Random(seed)).candidate][0] == best


def test_every_member_of_the_front_can_win() -> None:
    population = [Told(n, n, "evaluated", f, int) for n, f in values([(0, 0), (4, 4), (2, 3), (1, 4)]).items()]
    rng = random.Random(1)
    winners = {pareto_tournament(population, 4, OBJECTIVES, rng).candidate for _ in range(200)}
    assert winners >= {0, 1, 2}  # each has odds > 0.1 a draw: missed with odds < 3 · 0.9^200 < 1e-8


def test_tournament_size_is_five_percent_and_two_at_least() -> None:
    assert [tournament_size(p) for p in (1, 2, 10, 40, 100, 500)] == [1, 2, 2, 2, 5, 25]


def rerun(stage: str, state: str = "passed", **fitness: float) -> StageResult:
    return StageResult(0, stage, Outcome(state, fitness=fitness))  # type: ignore[arg-type]


def test_the_winner_is_the_best_of_the_rerank_that_passed_all_of_it() -> None:
    stages = ["r0", "r1"]
    assert rerank_value([rerun("r0", a=1.0), rerun("r1", b=3.0)], stages, OBJECTIVES) == -1.0
    assert rerank_value([rerun("r0", a=1.0)], stages, OBJECTIVES) is None
    assert rerank_value([rerun("r0", a=1.0), rerun("r1", "failed")], stages, OBJECTIVES) is None
    assert winner([5, 3, 8], {5: 0.1, 3: 0.2, 8: None}) == 3
    assert winner([5, 3], {5: 0.1, 3: 0.1}) == 5
    assert winner([5, 3], {}) == 5
    assert winner([], {}) is None


def test_spread_over_repeated_trainings() -> None:
    results = [rerun("r0", a=1.0), rerun("r1", a=3.0), rerun("other", a=9.0), rerun("r2", "failed", a=9.0)]
    assert spread(results, ["r0", "r1", "r2"]) == {"a": {"mean": 2.0, "std": 2**0.5, "n": 2}}
    counted = [StageResult(0, f"r{k}", Outcome("passed", metrics={"kept": k})) for k in (0, 1)]
    assert spread(counted, ["r0", "r1"], "metrics") == {"kept": {"mean": 0.5, "std": 0.5**0.5, "n": 2}}


def test_an_objective_without_weight_counts_in_the_front_alone() -> None:
    objectives = (Objective("error", maximize=False), Objective("size", maximize=False, weight=0.0))
    fitness = {
        0: {"error": 0.2, "size": 100.0},
        1: {"error": 0.1, "size": 9000.0},
        2: {"error": 0.2, "size": 500.0},  # dominated by 0
        3: {"error": 0.9, "size": 1.0},
    }
    assert mean_value(fitness[1], objectives) == -0.1
    assert pareto_front(fitness, objectives) == [1, 0, 3]
    assert ranked(fitness, objectives) == [1, 0, 2, 3]
    results = [StageResult(0, f"r{k}", Outcome("passed", fitness={"error": 0.1 * k, "size": 7.0})) for k in (1, 2)]
    assert rerank_value(results, ["r1", "r2"], objectives) == pytest.approx(-0.15)

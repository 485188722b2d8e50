"""The rules of asha and racing, by hand; and what they make of a run."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import run_toy
from toy_space import ToySpace

from layersearch.errors import RecipeError
from layersearch.search.drivers.base import DRIVERS, Told
from layersearch.search.savings import saved
from layersearch.search.schedulers._fronts import Fronts
from layersearch.search.schedulers.asha import Asha
from layersearch.search.schedulers.base import SCHEDULERS, Promotion, Standing
from layersearch.search.schedulers.racing import Racing
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Objective, Stage

ONE = (Objective("a"),)
STAGES = (Stage("a@0", "fitness", rung=0), Stage("a@1", "fitness", "a@0", rung=1), Stage("a", "fitness", "a@1"))

points = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=25)


@given(points, st.integers(1, 3), st.sets(st.integers(0, 24)), st.integers(0, 9))
def test_fronts_are_those_of_repeated_removal(
    values: list[tuple[float, ...]], dimensions: int, taken: set[int], k: int
) -> None:
    fronts = Fronts()
    values = [value[:dimensions] for value in values]
    for number, value in enumerate(values):
        if number in taken and number % 2:
            fronts.take(number)
        fronts.add(number, value, sum(value))
        if number in taken and not number % 2:
            fronts.take(number)
    left, expected = dict(enumerate(values)), []
    while left:
        front = [n for n, v in left.items() if not any(w != v and all(map(float.__ge__, w, v)) for w in left.values())]
        expected += sorted(front, key=lambda n: (-sum(values[n]), n))
        left = {n: v for n, v in left.items() if n not in front}
    assert list(fronts) == expected
    assert len(fronts) == len(values)
    assert fronts.first_left(k) == next((number for number in expected[:k] if number not in taken), None)


@pytest.mark.parametrize("tiny_first", [True, False])
def test_a_difference_that_the_mean_does_not_show_still_dominates(tiny_first: bool) -> None:
    fronts = Fronts()
    for number, value in enumerate([1e-20, 0.0] if tiny_first else [0.0, 1e-20]):
        fronts.add(number, (1.0, value), (1.0 + value) / 2)
    assert list(fronts) == ([0, 1] if tiny_first else [1, 0])


def at(candidate: int, rung: int, value: float) -> Standing:
    return Standing(candidate, f"a@{rung}", rung, {f"a@{rung}": {"a": value}})


def test_asha_promotes_the_best_third_the_highest_rung_first() -> None:
    asha = Asha(STAGES, ONE, eta=3)
    for number, value in enumerate([0.5, 0.9]):
        asha.heard(at(number, 0, value), "paused")
    assert asha.promote() is None, "one of three goes on, and there are two"
    asha.heard(at(2, 0, 0.1), "paused")
    assert asha.promote() == Promotion(1, 0)
    assert asha.decide(at(1, 0, 0.9)).verdict == "pause"
    asha.promoted(Promotion(1, 0))
    assert asha.decide(at(1, 0, 0.9)).verdict == "next"
    assert asha.promote() is None
    for number, value in enumerate([0.95, 0.2, 0.96], 3):
        asha.heard(at(number, 0, value), "paused")
    assert asha.promote() == Promotion(5, 0), "1 is no longer among the best two, which are 5 and 3"
    asha.promoted(Promotion(5, 0))
    assert asha.promote() == Promotion(3, 0)
    for number, value in [(1, 0.3), (5, 0.2), (3, 0.1)]:
        asha.heard(at(number, 1, value), "paused")
    assert asha.promote() == Promotion(1, 1), "before 3 at rung 0"


def test_asha_minimises_where_it_is_to() -> None:
    asha = Asha(STAGES, (Objective("a", maximize=False),), eta=2)
    for number, value in enumerate([0.5, 0.1]):
        asha.heard(at(number, 0, value), "paused")
    assert asha.promote() == Promotion(1, 0)


def test_an_objective_without_weight_counts_where_one_dominates_another_only() -> None:
    asha = Asha(STAGES, (Objective("a"), Objective("b", maximize=False, weight=0.0)), eta=2)
    for number, (a, b) in enumerate([(0.5, 10.0), (0.6, 900.0), (0.4, 5.0), (0.4, 6.0)]):
        asha.heard(Standing(number, "a@0", 0, {"a@0": {"a": a, "b": b}}), "paused")
    assert asha.promote() == Promotion(1, 0)
    asha.promoted(Promotion(1, 0))
    assert asha.promote() == Promotion(0, 0)


def test_asha_needs_rungs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="scheduler asha must have rungs"):
        run_toy(tmp_path, scheduler="asha")


@pytest.mark.parametrize("eta", [1, 0, -3, 2.5, True, float("nan"), float("inf"), "3"])
@pytest.mark.parametrize("scheduler", ["asha", "racing"])
def test_eta_is_a_whole_number(scheduler: str, eta: Any) -> None:
    with pytest.raises(RecipeError, match=r"scheduler\.eta must be a whole number"):
        SCHEDULERS[scheduler].make(STAGES, ONE, {"eta": eta})


@pytest.mark.parametrize("knobs", [{"margin": -1}, {"margin": float("nan")}, {"best": 0}])
def test_knobs_of_racing_are_checked(knobs: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"scheduler\.(margin|best) must be"):
        SCHEDULERS["racing"].make(STAGES, ONE, knobs)


def evaluated(candidate: int, early: float, final: float) -> Standing:
    measured = {"a@0": {"a": early}, "a@1": {"a": early}, "a": {"a": final}}
    return Standing(candidate, "a", None, measured)


def test_racing_stops_who_is_behind_the_best_in_every_measurement() -> None:
    racing = Racing(STAGES, ONE, margin=1.0, best=2)
    rows = [(0.50, 0.90), (0.60, 0.80), (0.90, 0.10), (0.10, 0.20)]
    for number, (early, final) in enumerate(rows):
        assert racing.decide(at(9, 0, -1.0)).verdict == "next", "twice the best were not evaluated yet"
        racing.heard(evaluated(number, early, final), "evaluated")
    # The best two have .50 and .60 early: the bar is .50 - .0707.
    for value, verdict in [(0.43, "next"), (0.42, "stop")]:
        standing = Standing(9, "a@0", 0, {"a@0": {"a": value}}, seen=4)
        assert racing.decide(standing).verdict == verdict
    assert racing.decide(Standing(9, "a@0", 0, {"a@0": {"a": 0.1}}, seen=3)).verdict == "next", "as it was then"
    both = Standing(9, "a@1", 1, {"a@0": {"a": 0.7}, "a@1": {"a": 0.1}}, seen=4)
    assert racing.decide(both).verdict == "next", "was ahead once"
    assert racing.decide(Standing(9, "other", None, {"a@0": {"a": 0.1}}, seen=4)).verdict == "next", "nothing new"


def test_evolution_breeds_from_nobody_that_was_stopped() -> None:
    space = ToySpace()
    one, other = (DRIVERS["evolution"](space, 8, {}) for _ in range(2))
    for slot in range(8):
        for driver in (one, other):
            driver.tell(Told(slot, slot, "evaluated", {"o0": 0.1 * slot, "o1": 0.5}, lambda slot=slot: slot))
        one.tell(Told(slot, 100, "stopped", {}, lambda: 100, {"o0": 9.0, "o1": -9.0}))
    asked = [next(driver.ask(20, random.Random(1))) for driver in (one, other)]
    assert asked[0] == asked[1]


class _Listening:
    """A driver that keeps what it is told."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.tells: list[Told] = []

    def ask(self, *arguments: Any) -> Any:
        return self.driver.ask(*arguments)

    def tell(self, told: Told) -> None:
        self.tells.append(told)
        self.driver.tell(told)


@pytest.mark.parametrize(("scheduler", "knobs"), [("asha", {}), ("racing", {"margin": 0.0, "best": 2})])
def test_a_driver_hears_of_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, knobs: dict[str, float]
) -> None:
    listening: list[_Listening] = []
    evolution = DRIVERS["evolution"]

    def listen(*arguments: Any) -> Any:
        listening.append(_Listening(evolution(*arguments)))
        return listening[-1]

    monkeypatch.setitem(DRIVERS._rows, "evolution", listen)
    run_toy(tmp_path / "a", {"ratio": 3}, scheduler=scheduler, scheduler_settings=knobs, evaluations=20)
    stopped = [told for told in listening[0].tells if told.state == "stopped"]
    assert stopped
    assert all(told.fitness == {} and "o0" in told.metrics for told in stopped)
    with StoreReader(tmp_path / "a") as reader:
        if scheduler == "asha":  # all that wait; of those that racing stopped, the driver has not heard the last ones
            waited = {c.number for c in reader.candidates() if c.state == "stopped" and "o0" in last(reader, c.number)}
            assert {told.candidate for told in stopped} >= waited
        for told in stopped:
            assert told.metrics == last(reader, told.candidate)
        reasons = [reason for _, reason, _ in reader.rejections() if reason.startswith("behind the best 2")]
        assert bool(reasons) == (scheduler == "racing")


def last(reader: StoreReader, number: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for result in reader.results(number):
        found.update(result.outcome.fitness)
    return found


def test_what_is_saved_is_what_was_not_trained(tmp_path: Path) -> None:
    run_toy(tmp_path / "a", {"ratio": 3}, scheduler="asha", evaluations=6)
    run_toy(tmp_path / "b", {"ratio": 3}, evaluations=6)
    with StoreReader(tmp_path / "b") as reader:
        assert saved(reader) is None
    with StoreReader(tmp_path / "a") as reader:
        found = saved(reader)
        assert found is not None
        json.dumps(found, allow_nan=False)
        stages = {stage.id: stage.steps for stage in reader.stages()}
        stopped = [c.number for c in reader.candidates() if c.state == "stopped"]
        left = sum(sum(stages.values()) - sum(stages[r.stage] for r in reader.results(n)) for n in stopped)
        assert found["steps"] == left > 0
        assert found["candidates"] == len(stopped)
        assert found["core_minutes"] > 0
        rungs = found["rungs"]
        assert [row["rung"] for row in rungs] == [0, 1]
        assert rungs[1]["promoted"] >= 6
        assert rungs[0]["reached"] > rungs[0]["promoted"] >= rungs[1]["reached"] > rungs[1]["promoted"]


def test_candidates_under_way_at_the_end_are_not_counted_as_saved(tmp_path: Path) -> None:
    """``straight`` drops them, too."""
    settings = {"evaluations": 2, "backend": "pool", "workers": 3, "deterministic": False}
    run_toy(tmp_path / "a", {"ratio": 3, "sleep_s": 0.02}, scheduler="racing", **settings)
    with StoreReader(tmp_path / "a") as reader:
        found = saved(reader)
        assert found is not None
        assert found["candidates"] == sum(c.state == "stopped" and c.reason != "" for c in reader.candidates())
        assert found["candidates"] == 0, "nobody is stopped before ten were evaluated"
        assert any(c.state == "stopped" for c in reader.candidates()), "or there is nothing to count wrongly"

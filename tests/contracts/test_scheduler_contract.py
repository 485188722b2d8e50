"""What every scheduler promises; a new one is picked up from the registry."""

import random
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toy_runs import content_of, run_toy
from toy_space import ToySpace

from layersearch.errors import RecipeError
from layersearch.search.drivers.base import DRIVERS
from layersearch.search.runner import RunEvent
from layersearch.search.schedulers.base import SCHEDULERS, Promotion, Scheduler, Standing, rung_ends
from layersearch.search.store_reader import StoreReader

SPACE = ToySpace(ratio=3)
ENDS = rung_ends(SPACE.stages)
KNOBS: dict[str, dict[str, float]] = {"racing": {"margin": 0.0, "best": 2}}


@pytest.fixture(params=list(SCHEDULERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(name: str) -> Scheduler:
    return SCHEDULERS[name].make(SPACE.stages, SPACE.objectives, KNOBS.get(name, {}))


Event = Promotion | tuple[Standing, Any]


def played(scheduler: Scheduler, n: int, seed: int) -> tuple[list[Any], list[Event]]:
    """What a scheduler decides of ``n`` candidates that pass every stage, and what it was told."""
    rng = random.Random(seed)
    decisions: list[Any] = []
    events: list[Event] = []
    measured: dict[int, dict[str, Mapping[str, float]]] = {}
    done: dict[int, int] = {}
    n_heard, seen = 0, {}

    def go_on(number: int) -> None:
        nonlocal n_heard
        for i in range(done[number], len(SPACE.stages)):
            stage = SPACE.stages[i]
            done[number] = i + 1
            if stage.id.startswith("fitness"):
                measured[number][stage.id] = {stage.id[8:10]: rng.random() * (number % 7)}
            standing = Standing(number, stage.id, ENDS.get(stage.id), dict(measured[number]), seen[number])
            last = i + 1 == len(SPACE.stages)
            decision = None if last else scheduler.decide(standing)
            decisions.append((number, stage.id, decision))
            if decision is None or decision.verdict != "next":
                state = {"pause": "paused", "stop": "stopped"}[decision.verdict] if decision else "evaluated"
                scheduler.heard(standing, state)  # type: ignore[arg-type]
                events.append((standing, state))
                n_heard += state != "paused"
                return

    number = 0
    while number < n:
        promotion = scheduler.promote()
        decisions.append(promotion)
        if promotion is not None:
            scheduler.promoted(promotion)
            events.append(promotion)
            go_on(promotion.candidate)
        else:
            measured[number], done[number], seen[number] = {}, 0, n_heard
            go_on(number)
            number += 1
    return decisions, events


def told(scheduler: Scheduler, events: list[Event]) -> Scheduler:
    for event in events:
        if isinstance(event, Promotion):
            scheduler.promoted(event)
        else:
            scheduler.heard(*event)
    return scheduler


def probe(scheduler: Scheduler, events: list[Event]) -> list[Any]:
    """All that can be asked of it."""
    standings = [event[0] for event in events if not isinstance(event, Promotion)]
    return [scheduler.promote(), *(scheduler.decide(s) for s in standings)]


def test_state_is_a_function_of_what_was_told(name: str) -> None:
    first = make(name)
    decisions, events = played(first, 60, 1)
    assert decisions == played(make(name), 60, 1)[0]
    assert probe(told(make(name), events), events) == probe(first, events)


def test_promotions_may_be_told_first(name: str) -> None:
    _, events = played(make(name), 60, 1)
    promotions = [event for event in events if isinstance(event, Promotion)]
    others = [event for event in events if not isinstance(event, Promotion)]
    expected = probe(told(make(name), events), events)
    assert probe(told(make(name), [*promotions, *others]), events) == expected


def test_asking_changes_nothing(name: str) -> None:
    scheduler = make(name)
    _, events = played(scheduler, 60, 2)
    assert probe(scheduler, events) == probe(scheduler, events)


def test_decisions_look_no_further_than_what_was_seen(name: str) -> None:
    """So they do not depend on who came in first."""
    _, events = played(make(name), 60, 3)
    heard = [event for event in events if not isinstance(event, Promotion)]
    finished = [event for event in heard if event[1] != "paused"]
    everything = told(make(name), events)
    for standing, _ in heard:
        before = told(make(name), [event for event in events if isinstance(event, Promotion)])
        told(before, list(finished[: standing.seen]))
        assert everything.decide(standing) == before.decide(standing)


def test_only_who_waits_is_promoted_and_each_rung_once(name: str) -> None:
    decisions, _ = played(make(name), 80, 4)
    waiting: set[Promotion] = set()
    done: set[Promotion] = set()
    for decision in decisions:
        if isinstance(decision, Promotion):
            assert decision in waiting
            assert decision not in done
            done.add(decision)
        elif decision is not None and decision[2] is not None and decision[2].verdict == "pause":
            waiting.add(Promotion(decision[0], ENDS[decision[1]]))
    assert any(d is not None and not isinstance(d, Promotion) and d[2] is None for d in decisions), "some come through"


def test_unknown_knobs_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"'scheduler\.etta'"):
        SCHEDULERS[name].make(SPACE.stages, SPACE.objectives, {"etta": 3})


@pytest.mark.parametrize("driver", list(DRIVERS))
def test_every_driver_is_resumed_under_it(name: str, driver: str, tmp_path: Path) -> None:
    settings = {"scheduler": name, "scheduler_settings": KNOBS.get(name, {}), "driver": driver, "evaluations": 6}
    run_toy(tmp_path / "whole", {"ratio": 3}, **settings)
    n_events = 0

    def interrupt(event: RunEvent) -> None:
        nonlocal n_events
        n_events += 1
        if n_events in (40, 41, 75):
            signal.raise_signal(signal.SIGINT)

    while run_toy(tmp_path / "parts", {"ratio": 3}, interrupt, **settings) != "finished":
        pass
    assert n_events > 75
    assert content_of(tmp_path / "parts") == content_of(tmp_path / "whole")


def test_a_run_ends_with_nobody_waiting_and_no_checkpoint(name: str, tmp_path: Path) -> None:
    for run in ("a", "b"):
        settings = {"scheduler": name, "scheduler_settings": KNOBS.get(name, {}), "evaluations": 8}
        assert run_toy(tmp_path / run, {"ratio": 3}, **settings) == "finished"
        assert not list((tmp_path / run / "checkpoints").iterdir())
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    with StoreReader(tmp_path / "a") as reader:
        counts = reader.counts()
        assert (counts["evaluated"], counts["paused"], counts["in_flight"]) == (8, 0, 0)
        assert all(set(f) == {"o0", "o1"} for f in reader.evaluated().values())

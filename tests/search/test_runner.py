"""The runner: reproducible, independent of workers, extendable, and honest in its counts."""

import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from toy_runs import content_of, interruption, run_toy
from toy_space import ToySpace

from layersearch.errors import DataError, RecipeError, RunError, StoreError, UnknownNameError
from layersearch.primitives.seeds import Seeds
from layersearch.search import asking, searching
from layersearch.search.drivers.base import DRIVERS, Told
from layersearch.search.executors.inline import InlineExecutor
from layersearch.search.lock import RunLock
from layersearch.search.runner import RunEvent
from layersearch.search.store import Store
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Outline

SCHEDULED: dict[str, dict[str, Any]] = {
    "straight": {"scheduler": "straight"},
    "asha": {"scheduler": "asha", "evaluations": 12, "lookahead": 6},
    "racing": {"scheduler": "racing", "scheduler_settings": {"margin": 0.0, "best": 2}, "lookahead": 6},
}
RUNGS = {"ratio": 3}


@pytest.fixture(params=list(SCHEDULED))
def scheduled(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a run under each scheduler."""
    return SCHEDULED[request.param]


@pytest.mark.parametrize("driver", ["evolution", "random"])
def test_same_seed_same_run_and_another_seed_another(tmp_path: Path, driver: str) -> None:
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        assert run_toy(tmp_path / name, seed=seed, driver=driver) == "finished"
    a, b, c = (content_of(tmp_path / name) for name in "abc")
    assert a == b
    assert a["candidates"] != c["candidates"]
    assert a["counts"]["evaluated"] == c["counts"]["evaluated"] == 25


@pytest.mark.parametrize(
    ("workers", "scheduler"), [*((n, s) for s in ("straight", "asha") for n in (1, 2, 4)), (4, "racing")]
)
def test_the_number_of_workers_changes_nothing(tmp_path: Path, workers: int, scheduler: str) -> None:
    scheduled = SCHEDULED[scheduler]
    space = RUNGS | {"sleep_s": 0.001, "tricks": {"300": "raise-once", "305": "die-once", "299": "raise"}}
    run_toy(tmp_path / "pool", space, backend="pool", workers=workers, **scheduled)
    run_toy(tmp_path / "inline", space | {"tricks": {"299": "raise"}}, **scheduled)
    pool, inline = content_of(tmp_path / "pool"), content_of(tmp_path / "inline")
    assert pool.pop("space") != inline.pop("space")
    assert pool == inline


def test_another_lookahead_is_another_run(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    run_toy(tmp_path / "a", lookahead=2)
    run_toy(tmp_path / "b", lookahead=6)
    assert content_of(tmp_path / "a")["candidates"] != content_of(tmp_path / "b")["candidates"]


def test_an_extended_run_equals_a_longer_one(tmp_path: Path, scheduled: dict[str, Any]) -> None:
    n = 40 if scheduled["scheduler"] != "asha" else 16
    run_toy(tmp_path / "long", RUNGS, **scheduled | {"evaluations": n})
    for evaluations in (n // 6, n // 6 + 1, n // 2, n):
        changes = {"evaluations": evaluations}
        if scheduled["scheduler"] != "racing":
            changes |= {"backend": "pool", "workers": 3}
        assert run_toy(tmp_path / "steps", RUNGS, **scheduled | changes) == "finished"
        assert content_of(tmp_path / "steps")["counts"]["evaluated"] == evaluations
        assert not list((tmp_path / "steps" / "checkpoints").iterdir())
    assert content_of(tmp_path / "steps") == content_of(tmp_path / "long")


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    run_toy(tmp_path / "a")
    before = content_of(tmp_path / "a")
    events: list[RunEvent] = []
    assert run_toy(tmp_path / "a", on_event=events.append) == "finished"
    assert not events
    assert content_of(tmp_path / "a") == before


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("backend", ["inline", "pool"])
def test_counts_add_up_at_every_event(
    tmp_path: Path, backend: str, deterministic: bool, scheduled: dict[str, Any]
) -> None:
    tricks = {"300": "nan", "301": "fail", "302": "raise"}
    seen: list[dict[str, Any]] = []

    def check(event: RunEvent) -> None:
        counts = event.counts.to_json()
        asked = counts.pop("asked")
        assert asked == sum(counts.pop("rejected").values()) + sum(counts.values())
        if event.kind == "asked":  # results that arrive together are written down before any of them is shown
            with StoreReader(tmp_path / "a") as reader:
                assert reader.counts() == event.counts
        seen.append(event.counts.to_json())

    settings = scheduled | {"backend": backend, "workers": 2, "deterministic": deterministic}
    run_toy(tmp_path / "a", RUNGS | {"tricks": tricks}, check, **settings)
    assert seen[-1]["evaluated"] == scheduled.get("evaluations", 25)
    assert seen[-1]["in_flight"] == seen[-1]["paused"] == 0
    with StoreReader(tmp_path / "a") as reader:
        assert reader.counts().to_json() == seen[-1]
        assert reader.counts().asked > 25


def test_what_is_not_finite_fails_and_is_never_told(tmp_path: Path) -> None:
    run_toy(tmp_path / "a", {"tricks": {str(n): "nan" for n in range(0, 1000, 4)}}, evaluations=30)
    with StoreReader(tmp_path / "a") as reader:
        failed = [c for c in reader.candidates() if c.state == "failed"]
        assert failed
        assert {(c.stage, c.reason) for c in failed} == {("quality", "fitness 'o0' is nan")}
        assert all(math.isfinite(v) for fitness in reader.evaluated().values() for v in fitness.values())
        assert len(failed) == reader.counts()["failed"]


def test_funnel_results_and_lineage_are_recorded(tmp_path: Path) -> None:
    run_toy(tmp_path / "a", evaluations=40)
    with StoreReader(tmp_path / "a") as reader:
        by_state: dict[str, list[Any]] = {}
        for number, candidate in enumerate(reader.candidates()):
            assert candidate.number == number
            by_state.setdefault(candidate.state, []).append(candidate)
        assert [(c.name, c.state) for c in reader.candidates() if c.origin == "seed"] == [
            ("ten", "evaluated"),
            ("eleven", "rejected"),
        ]
        assert {c.reason for c in by_state["screened_out"]} <= {"a multiple of seven", "a multiple of eleven"}
        for c in by_state["duplicate"]:
            assert c.duplicate_of < c.number
            assert c.genome["n"] % 1000 == reader.genome(c.duplicate_of)["n"] % 1000
        for c in by_state["rejected"]:
            (result,) = reader.results(c.number)
            assert (c.stage, c.reason, result.outcome.limit) == ("quality", "too small", 2.0)
        evolved = [c for c in by_state["evaluated"] if c.origin == "evolved"]
        assert evolved
        assert all(reader.candidate(c.parents[0]).state == "evaluated" for c in evolved)
        assert {r.stage for r in reader.results(evolved[0].number)} >= {"quality", "fitness:o0", "fitness:o1"}
        passing = {c.genome["n"] % 1000 for s in ("evaluated", "rejected") for c in by_state[s]}
        assert len(passing) == sum(len(by_state[s]) for s in ("evaluated", "rejected"))


def test_baselines_rerank_and_test(tmp_path: Path) -> None:
    events: list[RunEvent] = []
    run_toy(tmp_path / "a", on_event=events.append, rerank_top=4)
    assert [e.phase for e in events if e.kind == "phase"] == ["baselines", "rerank", "test"]
    assert {e.total for e in events if e.phase == "rerank" and e.kind == "result"} == {6}
    assert [(e.done, e.total) for e in events if e.phase == "test"][-1] == (3, 3)
    with StoreReader(tmp_path / "a") as reader:
        assert [b.name for b in reader.baselines()] == ["eight", "nine"]
        top = reader.meta("rerank")
        assert len(top) == 4
        values = {n: reader.rerank_value(n) for n in top}
        assert reader.meta("winner") == max(values, key=lambda n: values[n] or -9)
        assert reader.best(1)[0].number == reader.meta("winner")
        tested = {n for n in (*top, -1, -2) if any(r.stage == "test:1" for r in reader.results(n))}
        assert tested == {reader.meta("winner"), -1, -2}
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


def test_the_baselines_that_are_chosen_come_out_as_among_all(tmp_path: Path) -> None:
    for name, chosen in (("all", None), ("one", ["nine"]), ("none", [])):
        assert run_toy(tmp_path / name, rerank_top=2, baselines=chosen) == "finished"
    measured = {}
    for name in ("all", "one", "none"):
        with StoreReader(tmp_path / name) as reader:
            outcomes = {b.name: {r.stage: r.outcome for r in reader.results(b.number)} for b in reader.baselines()}
            measured[name] = outcomes, reader.meta("winner"), reader.best(3)
    assert measured["one"] == ({"nine": measured["all"][0]["nine"]}, *measured["all"][1:])
    assert measured["none"] == ({}, *measured["all"][1:])


def test_the_choice_of_baselines_is_kept_and_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown baseline 'nin'; did you mean 'nine'\? \(known: eight, nine\)"):
        run_toy(tmp_path / "a", baselines=["eight", "nin"])
    run_toy(tmp_path / "a", baselines=("eight",))
    with pytest.raises(StoreError, match=r"baselines of a run must not change, got None where \['eight'\]"):
        run_toy(tmp_path / "a", evaluations=30)
    assert run_toy(tmp_path / "a", evaluations=30, baselines=("eight",)) == "finished"
    with Store(tmp_path / "a") as store:  # as by versions without the choice
        store.set_meta(run={name: value for name, value in store.meta("run").items() if name != "baselines"})
    assert run_toy(tmp_path / "a", evaluations=31) == "finished"
    with StoreReader(tmp_path / "a") as reader:
        assert [b.name for b in reader.baselines()] == ["eight"]


def test_without_a_rerank_the_winner_is_trained_for_the_test(tmp_path: Path) -> None:
    assert run_toy(tmp_path / "a", rerank_top=0) == "finished"
    with StoreReader(tmp_path / "a") as reader:
        winner = reader.meta("winner")
        assert winner == reader.order()[0]
        assert {"rerank:0", "rerank:1", "test:0", "test:1"} <= {r.stage for r in reader.results(winner)}
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


def test_rerank_seeds_are_paired(tmp_path: Path) -> None:
    run_toy(tmp_path / "a")
    with StoreReader(tmp_path / "a") as reader:
        noise = {
            round((r.outcome.fitness["o0"] + abs(reader.genome(n)["n"] % 1000 - 300) / 300) * 1e5)
            for n in (*reader.meta("rerank"), -1, -2)
            for r in reader.results(n)
            if r.stage == "rerank:0"
        }
    assert noise == {Seeds(3).derive("rerank", "rerank:0") % 1000}


def test_minutes_end_a_run_and_are_summed(tmp_path: Path) -> None:
    space = {"sleep_s": 0.002}
    assert run_toy(tmp_path / "a", space, evaluations=None, minutes=0.005) == "finished"
    with StoreReader(tmp_path / "a") as reader:
        first, spent = reader.counts(), reader.meta("elapsed_s")
        assert 0.3 <= spent < 30
        assert first["evaluated"] > 5
        assert first["in_flight"] == first["stopped"] == 0
    assert run_toy(tmp_path / "a", space, evaluations=None, minutes=0.01) == "finished"
    with StoreReader(tmp_path / "a") as reader:
        assert 0.6 <= reader.meta("elapsed_s") < 30
        assert reader.counts()["evaluated"] > first["evaluated"]


def test_without_determinism_open_candidates_are_stopped_and_reopened(tmp_path: Path) -> None:
    settings = {"deterministic": False, "backend": "pool", "workers": 4}
    for evaluations in (5, 10, 11, 12, 20):
        run_toy(tmp_path / "a", {"sleep_s": 0.002, "reject_every": 0}, evaluations=evaluations, **settings)
        with StoreReader(tmp_path / "a") as reader:
            assert reader.counts()["evaluated"] == evaluations
            assert reader.counts()["stopped"] >= 1
            assert reader.counts()["in_flight"] == 0


def test_results_that_arrive_together_do_not_overshoot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four jobs at a time, answered all at once."""
    one_by_one = InlineExecutor.results

    def together(executor: InlineExecutor, timeout_s: float | None = None) -> list[Any]:
        return [answer for _ in range(4) for answer in one_by_one(executor, timeout_s)]

    monkeypatch.setattr(InlineExecutor, "capacity", 4)
    monkeypatch.setattr(InlineExecutor, "results", together)
    for evaluations in (5, 6, 7, 15):
        run_toy(tmp_path / "a", {"reject_every": 0}, evaluations=evaluations, deterministic=False)
        with StoreReader(tmp_path / "a") as reader:
            assert reader.counts()["evaluated"] == evaluations


def test_first_jobs_are_run_while_the_driver_is_asked_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proposal takes longer here than the driver is asked on; workers have room for eight jobs."""
    moments: list[str] = []
    outline, results = ToySpace.outline, InlineExecutor.results

    def slow(space: ToySpace, genome: int) -> Outline:
        moments.append("asked")
        time.sleep(1.2 * searching.ASKED_ON_S)
        return outline(space, genome)

    def noted(executor: InlineExecutor, timeout_s: float | None = None) -> list[Any]:
        moments.append("results")
        return results(executor, timeout_s)

    monkeypatch.setattr(InlineExecutor, "capacity", 8)
    monkeypatch.setattr(InlineExecutor, "results", noted)
    monkeypatch.setattr(ToySpace, "outline", slow)
    run_toy(tmp_path / "a", evaluations=1, lookahead=8, rerank_top=0)
    assert moments[:2] == ["asked", "results"]


def test_an_arrival_order_can_be_replayed(tmp_path: Path) -> None:
    """From ``told`` and ``seen``, a driver makes the recorded proposals again."""
    run_toy(tmp_path / "a", {"sleep_s": 0.001}, deterministic=False, backend="pool", workers=3, evaluations=30)
    space = ToySpace()
    driver, n_heard = DRIVERS["evolution"](space, 8, {}), 0
    with StoreReader(tmp_path / "a") as reader:
        told = {c.told: c for c in reader.candidates() if c.told is not None}
        slots: dict[int, list[Any]] = {}
        for candidate in reader.candidates():
            slots.setdefault(candidate.slot or 0, []).append(candidate)
    assert len(slots) > 30
    for slot, candidates in slots.items():
        while n_heard < candidates[0].seen:
            c = told[n_heard]
            driver.tell(Told(c.slot, c.number, c.state, c.fitness, lambda c=c: c.genome["n"]))
            n_heard += 1
        asked = driver.ask(slot, Seeds(3).stream("driver", slot))
        assert [c.genome["n"] for c in candidates] == [p.genome for _, p in zip(candidates, asked, strict=False)]


def test_an_exhausted_space_ends_the_run_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_PROPOSALS", 300)
    with pytest.raises(RunError, match=r"300 in a row for slot .* exhausted"):
        run_toy(tmp_path / "a", {"size": 20})
    with StoreReader(tmp_path / "a") as reader:
        assert reader.state == "interrupted"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 4}, "seed of a run must not change, got 4 where 3"),
        ({"population": 9}, "population"),
        ({"driver": "random"}, "driver"),
        ({"scheduler": "racing"}, "scheduler of a run must not change, got 'racing' where 'straight'"),
    ],
)
def test_what_identifies_a_run_must_not_change(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    run_toy(tmp_path / "a", evaluations=3)
    before = content_of(tmp_path / "a")
    with pytest.raises(StoreError, match=sentence):
        run_toy(tmp_path / "a", evaluations=5, **change)
    with pytest.raises(StoreError, match="the space of a run must not change, got another value of size"):
        run_toy(tmp_path / "a", {"size": 77}, evaluations=5)
    assert content_of(tmp_path / "a") == before


def test_a_run_measured_in_other_units_is_not_resumed(tmp_path: Path) -> None:
    space = {"costs": ["latency"]}
    run_toy(tmp_path / "a", space, evaluations=3, deterministic=False)
    with Store(tmp_path / "a") as store:
        rows = store.meta("objectives")
        store.set_meta(objectives=[row | ({"unit": "ms"} if row["name"] == "latency" else {}) for row in rows])
    with pytest.raises(StoreError, match="latency is recorded in 'ms' and would be measured in '× nothing'"):
        run_toy(tmp_path / "a", space, evaluations=5, deterministic=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"evaluations": 0},
        {"evaluations": None},
        {"minutes": math.nan},
        {"workers": 0},
        {"population": -1},
        {"rerank_top": -1},
    ],
)
def test_settings_are_checked(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        run_toy(tmp_path / "a", **settings)


def test_unknown_names_and_missing_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown driver 'evolutoin'; did you mean 'evolution'"):
        run_toy(tmp_path / "a", driver="evolutoin")
    with pytest.raises(UnknownNameError, match="unknown backend 'pol'; did you mean 'pool'"):
        run_toy(tmp_path / "b", backend="pol")
    with pytest.raises(DataError, match="toy data"):
        run_toy(tmp_path / "c", {"broken": "data"})
    with pytest.raises(RecipeError, match="p_random must be between 0 and 1"):
        run_toy(tmp_path / "d", driver_settings={"p_random": 2})


def test_a_second_runner_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    code = "import pathlib, sys, time; from layersearch.search.lock import RunLock; "
    code += "lock = RunLock(pathlib.Path(sys.argv[1])).__enter__(); print('held', flush=True); time.sleep(60)"
    (tmp_path / "a").mkdir()
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"held by process {other.pid}"):
            run_toy(tmp_path / "a")
        assert not (tmp_path / "a" / "run.sqlite").exists()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert run_toy(tmp_path / "a", evaluations=2) == "finished"


def test_ctrl_c_once_finishes_what_runs(tmp_path: Path) -> None:
    events: list[RunEvent] = []

    def interrupt(event: RunEvent) -> None:
        events.append(event)
        if len(events) == 30:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    assert run_toy(tmp_path / "a", on_event=interrupt, backend="pool", workers=2) == "interrupted"
    assert "interrupt" in [e.kind for e in events]
    with StoreReader(tmp_path / "a") as reader:
        assert reader.state == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    assert run_toy(tmp_path / "a") == "finished"
    run_toy(tmp_path / "b")
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")


def test_ctrl_c_twice_stops_at_once(tmp_path: Path) -> None:
    def interrupt(event: RunEvent) -> None:
        if event.kind == "asked" and event.counts.asked > 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    begun = time.monotonic()
    assert run_toy(tmp_path / "a", {"sleep_s": 0.2}, interrupt, backend="pool", workers=2) == "interrupted"
    assert time.monotonic() - begun < 10
    with RunLock(tmp_path / "a"), StoreReader(tmp_path / "a") as reader:
        assert reader.counts()["in_flight"] > 0


def test_interrupted_at_any_event_and_resumed_equals_undisturbed(
    tmp_path: Path, rounds: int, scheduled: dict[str, Any]
) -> None:
    run_toy(tmp_path / "whole", RUNGS, **scheduled)
    whole = content_of(tmp_path / "whole")
    rng = random.Random(5)
    for k in range(rounds):
        n_resumes = 0
        while run_toy(tmp_path / f"{k}", RUNGS, interruption(rng, 1, 40), **scheduled) != "finished":
            n_resumes += 1
        assert n_resumes > 2
        assert content_of(tmp_path / f"{k}") == whole


def test_a_lost_checkpoint_is_made_again(tmp_path: Path) -> None:
    def interrupt(event: RunEvent) -> None:
        if event.kind == "result" and event.report is not None and event.report.result.checkpoint:
            signal.raise_signal(signal.SIGINT)

    run_toy(tmp_path / "a", on_event=interrupt)
    files = list((tmp_path / "a" / "checkpoints").iterdir())
    assert files
    files[0].write_bytes(b"damaged")
    (tmp_path / "a" / "checkpoints" / "left over").write_bytes(b"by a crash")
    assert run_toy(tmp_path / "a") == "finished"
    run_toy(tmp_path / "b")
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


def test_the_store_is_plain_json_inside(tmp_path: Path) -> None:
    run_toy(tmp_path / "a", evaluations=3)
    json.dumps(content_of(tmp_path / "a"), allow_nan=False)


def test_core_minutes_end_a_run_and_are_summed(tmp_path: Path) -> None:
    """The toy's stages use well under a millisecond of CPU time each, but never none."""
    few, more = 1e-5, 2e-5
    spent: list[float] = []
    for budget in (few, more):
        assert run_toy(tmp_path / "a", evaluations=None, core_minutes=budget) == "finished"
        with StoreReader(tmp_path / "a") as reader:
            spent.append(reader.search_core_s())
        assert 60 * budget <= spent[-1] < 60 * budget + 0.05
    assert spent[1] > spent[0]

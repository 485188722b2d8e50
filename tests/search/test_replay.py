"""A run that was told of results as they came is repeated by its record: same candidates, same outcomes, same store."""

import json
import os
import signal
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_catalog import toy_cli
from toy_runs import content_of, run_toy
from toy_space import toy_spec

from layersearch.errors import BadInputError, StoreError
from layersearch.search import runner
from layersearch.search.candidate import Candidate, Finish, StageResult
from layersearch.search.replay import DifferenceError, Recording, Turn
from layersearch.search.runner import RunEvent, Runner, RunSettings
from layersearch.search.schedulers.base import Promotion
from layersearch.search.scheduling import Track
from layersearch.search.store import Store
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Outcome, Stage

# Stages of unequal length, so that results come in another order than candidates are asked for.
SLOW = {"tricks": {"300": "fail", "305": "raise"}, "sleep_s": 0.004, "uneven": True}
RUNGS = SLOW | {"ratio": 3}
FREE = {"deterministic": False, "backend": "pool", "workers": 2, "evaluations": 12}
RACING = {"scheduler": "racing", "scheduler_settings": {"margin": 0.0, "best": 2}}


def replayed(recorded: Path, run_dir: Path, on_event: Any = None, **changes: Any) -> str:
    """The replay of a toy run, in this process unless ``changes`` say otherwise."""
    with StoreReader(recorded) as reader:
        settings, space = reader.meta("run"), reader.meta("space")["settings"]
    given = settings | {"backend": "inline", "workers": 1} | changes
    run_dir.mkdir(exist_ok=True)
    spec = toy_spec(**space)
    return Runner(run_dir, spec, RunSettings(**given), on_event, recorded.name).run()


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (SLOW, {}),
        pytest.param(SLOW, {"driver": "optuna", "driver_settings": {"sampler": "tpe"}}, marks=pytest.mark.slow),
        (RUNGS, {"scheduler": "asha", "evaluations": 6}),
        pytest.param(RUNGS, RACING | {"evaluations": 25}, marks=pytest.mark.slow),
        (SLOW | {"costs": ["latency", "memory"]}, {}),
        (SLOW, {"evaluations": None, "minutes": 0.01}),
    ],
    ids=["straight", "optuna", "asha", "racing", "noisy", "minutes"],
)
def test_a_pool_of_two_is_repeated_by_one(tmp_path: Path, space: dict[str, Any], settings: dict[str, Any]) -> None:
    run_toy(tmp_path / "pool", space, **FREE | settings)
    assert replayed(tmp_path / "pool", tmp_path / "again") == "finished"
    assert content_of(tmp_path / "again") == content_of(tmp_path / "pool")


def test_the_order_is_another_than_that_of_the_proposals(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    run_toy(tmp_path / "pool", SLOW, **FREE)
    with StoreReader(tmp_path / "pool") as reader:
        order = [c.slot for c in sorted(reader.candidates(), key=lambda c: c.told or 0) if c.told is not None]
        assert order != sorted(order)
        recording = Recording(reader)
    assert recording.follows
    assert any(turn.seen != i for i, turn in enumerate(recording.turns))
    run_toy(tmp_path / "other", SLOW, **FREE | {"backend": "inline", "workers": 1})
    assert content_of(tmp_path / "other")["candidates"] != content_of(tmp_path / "pool")["candidates"]


@pytest.mark.slow
def test_an_extended_run_and_a_deterministic_one_are_repeated_too(tmp_path: Path) -> None:
    run_toy(tmp_path / "pool", RUNGS, **FREE | {"scheduler": "asha", "evaluations": 4})
    run_toy(tmp_path / "pool", RUNGS, **FREE | {"scheduler": "asha", "evaluations": 9})
    assert replayed(tmp_path / "pool", tmp_path / "again") == "finished"
    assert content_of(tmp_path / "again") == content_of(tmp_path / "pool")
    run_toy(tmp_path / "fixed", SLOW, evaluations=None, minutes=0.01)
    assert replayed(tmp_path / "fixed", tmp_path / "same", backend="pool", workers=2) == "finished"
    assert content_of(tmp_path / "same") == content_of(tmp_path / "fixed")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"driver": "optuna"}, {"scheduler": "asha", "evaluations": 8}], ids=str)
def test_a_replay_that_was_interrupted_goes_on_as_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    run_toy(tmp_path / "pool", RUNGS, **FREE | settings)
    n_results = 0

    def stop(event: RunEvent) -> None:
        nonlocal n_results
        n_results += event.kind == "result"
        if event.kind == "result" and n_results % 11 == 0:
            os.kill(os.getpid(), signal.SIGINT)

    ends = []
    while len(ends) < 30 and (not ends or ends[-1] != "finished"):
        ends.append(replayed(tmp_path / "pool", tmp_path / "again", stop))
    assert ends[-1] == "finished"
    assert len(ends) > 3
    assert content_of(tmp_path / "again") == content_of(tmp_path / "pool")
    before = content_of(tmp_path / "again")
    assert replayed(tmp_path / "pool", tmp_path / "again") == "finished"
    assert content_of(tmp_path / "again") == before
    assert replayed(tmp_path / "pool", tmp_path / "again", evaluations=30) == "finished", "as any other run"
    assert content_of(tmp_path / "again")["counts"]["evaluated"] == 30


def test_a_candidate_that_was_killed_after_its_promotion_is_promoted_again(tmp_path: Path) -> None:
    """Its record ends at the rung, as that of one that waits there to the end."""
    stages = [Stage("a@0", "fitness", rung=0), Stage("a", "fitness", "a@0")]
    with Store(tmp_path) as store:
        store.set_meta(run={"deterministic": False}, stages=[asdict(stage) for stage in stages], objectives=[])
        for number in range(2):
            store.asked([Candidate(number, number, "random", {})])
            store.told(StageResult(number, "a@0", Outcome("passed")), Finish("paused"))
        store.promoted(2, Promotion(0, 0), seen=0)
        store.end_search(None, 1.0)
    with StoreReader(tmp_path) as reader:
        recording = Recording(reader)
        assert recording.turns == [Turn(0), Turn(0), Turn(0, Promotion(0, 0))]
        for number, left_open in [(0, False), (1, True)]:
            of_slot = recording.stages_of(number, tuple(stages))
            assert [stage.id for stage in of_slot] == ["a@0"]
            track = Track(number, number, {}, of_slot, lambda _: 0, lambda _: None)
            assert not recording.is_left_open(track)
            track.done["a@0"] = StageResult(number, "a@0", Outcome("passed"))
            assert recording.is_left_open(track) == left_open
        assert not recording.may_begin(2, 0, paused=())
        assert recording.may_begin(2, 0, paused=(0,))
        assert not recording.may_begin(3, 0, paused=(0,))
        assert recording.is_over(3, 0)


def test_a_promotion_that_nothing_came_of_before_the_end_is_repeated(tmp_path: Path) -> None:
    """The last candidate was evaluated last of all; without what came after its promotion it is as if killed there."""
    settings = {"scheduler": "asha", "evaluations": 3, "backend": "inline", "workers": 1}
    run_toy(tmp_path / "pool", RUNGS, **FREE | settings)
    with StoreReader(tmp_path / "pool") as reader:
        last = max(reader.candidates(), key=lambda c: -1 if c.told is None else c.told)
        rung = max(promotion.rung for _, promotion in reader.promotions() if promotion.candidate == last.number)
        stages = reader.stages()
    n_before = 1 + max(i for i, stage in enumerate(stages) if stage.rung == rung)
    later = [stage.id for stage in stages[n_before:]]
    assert last.state == "evaluated"
    edited(
        tmp_path / "pool",
        f"UPDATE candidates SET state = 'stopped', told = NULL, fitness = '{{}}' WHERE number = {last.number}",
        f"DELETE FROM results WHERE candidate = {last.number} AND stage IN ({str(later)[1:-1]})",
    )
    assert replayed(tmp_path / "pool", tmp_path / "again") == "finished"
    assert searched(tmp_path / "again") == searched(tmp_path / "pool")


def searched(run_dir: Path) -> list[Any]:
    """What was asked, promoted, measured and told; not what came after the search, which another best one changes."""
    with StoreReader(run_dir) as reader:
        stages = {stage.id for stage in reader.stages()}
        candidates = [
            (c.number, c.genome, c.state, c.seen, c.told, {r.stage for r in reader.results(c.number)} & stages)
            for c in reader.candidates()
        ]
        return [reader.promotions(), candidates]


def edited(run_dir: Path, *statements: str) -> None:
    with sqlite3.connect(run_dir / "run.sqlite") as db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0
    db.close()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "UPDATE candidates SET genome = '{\"n\":77}' WHERE number = 9",
            "candidate 9 must be that of pool, but another",
        ),
        (
            "UPDATE candidates SET state = 'duplicate', duplicate_of = 1 WHERE number = 0",
            "is trained where a duplicate",
        ),
        (
            "UPDATE results SET fitness = '{\"o0\":0.5}' WHERE candidate = 0 AND stage = 'fitness:o0'",
            "candidate 0 must come out as in pool, but at fitness:o0 its fitness o0 is -0.9",
        ),
        (
            "UPDATE results SET state = 'rejected' WHERE candidate = 0",
            "at quality its state is 'passed' where 'rejected'",
        ),
        ("UPDATE results SET metrics = '{}' WHERE candidate = -1", "eight must come out as in pool, but at "),
        ("UPDATE results SET fitness = '{\"o0\":9}' WHERE stage = 'rerank:1'", "at rerank:1 its fitness o0 is"),
        ("UPDATE candidates SET seen = seen + 1 WHERE slot > 3", "the order of pool must be one that can be followed"),
    ],
    ids=str,
)
def test_the_first_difference_ends_it_in_one_sentence(tmp_path: Path, statement: str, says: str) -> None:
    run_toy(tmp_path / "pool", SLOW, **FREE | {"evaluations": 8})
    edited(tmp_path / "pool", statement)
    for _ in range(2):  # also when it is resumed
        with pytest.raises(DifferenceError) as caught:
            replayed(tmp_path / "pool", tmp_path / "again")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 1


def test_a_run_measured_in_other_units_is_not_repeated(tmp_path: Path) -> None:
    run_toy(tmp_path / "pool", SLOW | {"costs": ["latency"]}, **FREE | {"evaluations": 3})
    with Store(tmp_path / "pool") as store:
        rows = store.meta("objectives")
        store.set_meta(objectives=[row | ({"unit": "ms"} if row["name"] == "latency" else {}) for row in rows])
    with pytest.raises(StoreError, match="latency is recorded in 'ms' and would be measured in '× nothing'"):
        replayed(tmp_path / "pool", tmp_path / "again")


def test_only_a_run_whose_search_has_ended_is_repeated(tmp_path: Path) -> None:
    def stop(event: RunEvent) -> None:
        if event.counts["evaluated"] == 3 and event.kind == "result":
            os.kill(os.getpid(), signal.SIGINT)

    assert run_toy(tmp_path / "pool", SLOW, stop, **FREE) == "interrupted"
    with pytest.raises(StoreError, match="must have ended its search to be replayed, and pool has not"):
        replayed(tmp_path / "pool", tmp_path / "again")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAYERSEARCH_DATA", raising=False)
    return tmp_path


def test_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("--set", "sleep_s=0.004", "--set", "uneven=true")
    begin = ("--space", "toy", "--workers", "2", "--evaluations", "9", "--run", "first", *sets)
    assert toy_cli("tune", *begin, "--sampler", "random") == 0
    capsys.readouterr()
    assert toy_cli("evolve", "--replay", "first", "--backend", "inline", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["run"], found["replay"], found["driver"]) == ("toy-0001", "first", "optuna")
    assert "toy-0001 has the candidates and outcomes of first" in err
    assert content_of(folder / "runs/toy-0001") == content_of(folder / "runs/first")
    recipe = yaml.safe_load((folder / "runs/toy-0001/recipe.yaml").read_text())
    assert (recipe["backend"], recipe["workers"], recipe["evaluations"]) == ("inline", 1, 9)
    assert toy_cli("show", "toy-0001") == 0
    assert "replay of first" in capsys.readouterr().out
    assert toy_cli("resume", "toy-0001", "--json") == 0
    assert content_of(folder / "runs/toy-0001") == content_of(folder / "runs/first")
    edited(folder / "runs/first", "UPDATE results SET fitness = '{\"o0\":9}' WHERE stage = 'rerank:1'")
    capsys.readouterr()
    assert toy_cli("evolve", "--replay", "first", "--run", "second", "--json") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "search: " in err
    assert "must come out as in first, but at rerank:1" in err.splitlines()[-1]


def test_what_a_replay_refuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli("evolve", "--space", "toy", "--backend", "inline", "--evaluations", "3", "--run", "first") == 0
    for arguments, says in [
        (["--evaluations", "9"], "a replay must have the recipe of its run, got --evaluations as well; drop it"),
        (["--set", "size=9"], "got --set as well"),
        (["--recipe", "x.yaml"], "got --recipe as well"),
        (["--seed-layers", "ten"], "got --seed-layers as well"),
        (["--no-deterministic"], "got --deterministic as well"),
        (["--workers", "0"], "'workers' must be"),
        (["--run", "first"], "exists"),
    ]:
        capsys.readouterr()
        assert toy_cli("evolve", "--replay", "first", *arguments) == 2
        out, err = capsys.readouterr()
        assert says in err
        assert err.count("\n") == 1
        assert out == ""
    assert toy_cli("evolve", "--replay", "frist") == 2
    assert "did you mean 'first'" in capsys.readouterr().err
    assert [path.name for path in (folder / "runs").iterdir()] == ["first"]


def test_a_replay_that_was_killed_before_its_first_turn_is_still_one(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    (folder / "runs").mkdir()
    run_toy(folder / "runs/pool", SLOW, **FREE)
    (folder / "runs/pool/recipe.yaml").write_text("space: toy\nevaluations: 12\n")
    monkeypatch.setattr(runner, "EXECUTORS", {"inline": die, "pool": die})
    with pytest.raises(Died):
        toy_cli("evolve", "--replay", "pool", "--run", "again", "--backend", "inline")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert toy_cli("resume", "again", "--backend", "inline") == 0
    assert content_of(folder / "runs/again") == content_of(folder / "runs/pool")


def test_a_replay_whose_run_is_gone_says_so(tmp_path: Path) -> None:
    run_toy(tmp_path / "pool", SLOW, **FREE | {"evaluations": 4})
    (tmp_path / "pool").rename(tmp_path / "moved")
    (tmp_path / "again").mkdir()
    with StoreReader(tmp_path / "moved") as reader:
        settings = RunSettings(**reader.meta("run") | {"backend": "inline", "workers": 1})
    with pytest.raises(BadInputError, match="there is none named 'pool'"):
        Runner(tmp_path / "again", toy_spec(**SLOW), settings, None, "pool").run()

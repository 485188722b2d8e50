"""Optuna's samplers as a driver: what a study is told, what is refused, and that a resumed run goes on as it would."""

import importlib.util
import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from toy_runs import content_of, interruption, n_told, processes_of, run_toy, start_toy
from toy_space import ToySpace

from layersearch.errors import BadInputError, RecipeError, StoreError, UnknownNameError
from layersearch.primitives.seeds import Seeds
from layersearch.search import asking
from layersearch.search.drivers._optuna import OptunaDriver
from layersearch.search.drivers.base import DRIVERS, Proposal, Told
from layersearch.search.drivers.optuna import SAMPLERS
from layersearch.search.store_reader import StoreReader

ONE = {"objectives": 1}
NUMBERS = {"objectives": 1, "choices": False}
RUNS = [
    pytest.param("tpe", {}, 30),
    pytest.param("tpe", ONE, 30),
    pytest.param("nsga2", {}, 40),
    pytest.param("nsga3", {}, 40),
    pytest.param("random", {}, 25),
    pytest.param("cmaes", NUMBERS, 40, marks=pytest.mark.slow),
    pytest.param("gp", ONE, 14, marks=pytest.mark.slow),
    pytest.param("gp", {}, 14, marks=pytest.mark.slow),
]


def settings(sampler: str, **others: Any) -> dict[str, Any]:
    return {"driver": "optuna", "driver_settings": {"sampler": sampler}, **others}


def make(sampler: str = "tpe", population: int = 8, space: ToySpace | None = None) -> OptunaDriver:
    driver = DRIVERS["optuna"](space or ToySpace(), population, {"sampler": sampler})
    assert isinstance(driver, OptunaDriver)
    return driver


def asked(driver: OptunaDriver, slot: int, away: list[Told] | None = None) -> Proposal:
    """The first proposal of a slot after those that are turned ``away``."""
    proposals = driver.ask(slot, Seeds(0).stream("driver", slot))
    proposal = next(proposals)
    for told in away or ():
        driver.turned_away(told)
        proposal = next(proposals)
    return proposal


def evaluated(slot: int, candidate: int, o0: float = 0.5) -> Told:
    return Told(slot, candidate, "evaluated", {"o0": o0, "o1": 0.1}, lambda: 0)


def trials(driver: OptunaDriver) -> list[optuna.trial.FrozenTrial]:
    return driver._study.get_trials()


@pytest.mark.parametrize(("sampler", "space", "n"), RUNS)
def test_a_run_resumed_midway_makes_the_same_suggestions(
    tmp_path: Path, sampler: str, space: dict[str, Any], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether slots are worked out again or taken from the store."""
    run_toy(tmp_path / "whole", space, evaluations=n, **settings(sampler))
    whole = content_of(tmp_path / "whole")
    assert whole["counts"]["evaluated"] == n
    assert {c["origin"] for c in whole["candidates"]} >= {"seed", "suggested"}
    for checked in (1000, 1):
        monkeypatch.setattr(asking, "CHECKED_SLOTS", checked)
        for evaluations in (3, n // 2, n - 1, n):
            run_toy(tmp_path / f"{checked}", space, evaluations=evaluations, **settings(sampler))
        assert content_of(tmp_path / f"{checked}") == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, workers: int) -> None:
    space = {"sleep_s": 0.001}
    run_toy(tmp_path / "pool", space, backend="pool", workers=workers, **settings("tpe"))
    run_toy(tmp_path / "inline", space, **settings("tpe"))
    assert content_of(tmp_path / "pool") == content_of(tmp_path / "inline")


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    for seed in (1, 2):
        run_toy(tmp_path / f"{seed}", seed=seed, evaluations=12, **settings("tpe"))
    assert content_of(tmp_path / "1")["candidates"] != content_of(tmp_path / "2")["candidates"]


def test_interrupted_at_any_event_and_resumed_equals_undisturbed(tmp_path: Path, rounds: int) -> None:
    run_toy(tmp_path / "whole", **settings("tpe"))
    rng, n_resumes = random.Random(5), 0
    for k in range(rounds):
        interrupt = interruption(rng, 1, 40)
        while run_toy(tmp_path / f"{k}", on_event=interrupt, **settings("tpe")) != "finished":
            interrupt = interruption(rng, 5, 40)
            n_resumes += 1
        assert content_of(tmp_path / f"{k}") == content_of(tmp_path / "whole")
    assert n_resumes >= rounds


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "workers"), [("inline", 1), ("pool", 2)])
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path, rounds: int, backend: str, workers: int) -> None:
    given = {"backend": backend, "workers": workers, "evaluations": 30 + 5 * rounds, "seed": 3, "population": 8}
    given |= settings("tpe")
    space = {"sleep_s": 0.003}
    run_toy(tmp_path / "whole", space, **given)
    n_results, run_dir, rng = n_told(tmp_path / "whole"), tmp_path / "killed", random.Random(7)
    for k in range(rounds):
        runner = start_toy(run_dir, space, **given)
        wanted, deadline = (k + 1) * n_results // (rounds + 2), time.monotonic() + 60
        while n_told(run_dir) < wanted and runner.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        assert runner.poll() is None, "finished before it could be killed"
        os.kill(runner.pid, signal.SIGKILL)
        runner.communicate()
        while processes_of(run_dir) and time.monotonic() < deadline:
            time.sleep(0.05)
    runner = start_toy(run_dir, space, **given)
    out, err = runner.communicate(timeout=120)
    assert (out, err, runner.returncode) == ("finished\n", "", 0)
    assert content_of(run_dir) == content_of(tmp_path / "whole")


@pytest.mark.slow
def test_without_determinism_a_run_goes_on_from_the_recorded_order(tmp_path: Path) -> None:
    """Each resume works out again every suggestion, between the results that had come in."""
    given = settings("tpe", deterministic=False, backend="pool", workers=3)
    for evaluations in (20, 25):
        assert run_toy(tmp_path / "a", {"sleep_s": 0.001}, evaluations=evaluations, **given) == "finished"
        with StoreReader(tmp_path / "a") as reader:
            assert reader.counts()["evaluated"] == evaluations


@pytest.mark.parametrize("checked", [1000, 1])
def test_a_suggestion_that_differs_stops_the_resume(
    tmp_path: Path, checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "CHECKED_SLOTS", checked)
    run_toy(tmp_path / "a", evaluations=12, **settings("tpe"))
    db = sqlite3.connect(tmp_path / "a" / "run.sqlite")
    (last,) = db.execute("SELECT max(number) FROM candidates WHERE origin = 'suggested'").fetchone()
    (genome,) = db.execute("SELECT genome FROM candidates WHERE number = ?", (last,)).fetchone()
    changed = json.dumps({"n": json.loads(genome)["n"] ^ 1})
    db.execute("UPDATE candidates SET genome = ? WHERE number = ?", (changed, last))
    db.commit()
    db.close()
    with pytest.raises(
        StoreError, match=rf"another genome came up than that of candidate {last}; resume with"
    ) as caught:
        run_toy(tmp_path / "a", evaluations=13, **settings("tpe"))
    assert caught.value.exit_code == 2


def test_what_a_study_is_told() -> None:
    driver = make()
    asked(driver, 0)  # known layers
    driver.tell(evaluated(0, 0, 0.25))
    asked(driver, 1)
    driver.tell(Told(1, 1, "rejected", {}, lambda: 0, n_passed=1))
    asked(
        driver, 2, [Told(2, 2, "screened_out", {}, lambda: 0), Told(2, 3, "duplicate", {}, lambda: 0, duplicate_of=0)]
    )
    driver.tell(Told(2, 4, "failed", {}, lambda: 0))
    first, second, away, duplicate, failed = trials(driver)
    assert (first.state, first.values, first.params) == (TrialState.COMPLETE, [0.25, 0.1], {"ten": 1, "odd": "0"})
    assert first.constraints == {}
    assert (second.state, second.params) == (TrialState.PRUNED, {"ten": 1, "odd": "1"})
    assert list(second.constraints.values()) == [pytest.approx(2 / 3)]
    assert (away.state, list(away.constraints.values())) == (TrialState.PRUNED, [1.0])
    assert (duplicate.state, duplicate.values) == (TrialState.COMPLETE, first.values)
    assert failed.state == TrialState.FAIL
    assert driver._study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]


def test_a_duplicate_of_what_is_still_trained_is_told_with_it() -> None:
    driver = make(population=1)
    asked(driver, 0)
    asked(driver, 1, [Told(1, 1, "duplicate", {}, lambda: 0, duplicate_of=0)])
    assert [t.state for t in trials(driver)] == [TrialState.RUNNING] * 3
    driver.tell(evaluated(0, 0, 0.25))
    assert [t.state for t in trials(driver)] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.RUNNING]
    assert trials(driver)[1].values == trials(driver)[0].values == [0.25, 0.1]


def test_after_twenty_suggestions_in_vain_random_genomes_follow_and_only_the_last_becomes_a_trial() -> None:
    driver = make(population=1)
    proposal = asked(driver, 0, [Told(0, i, "screened_out", {}, lambda: 0) for i in range(25)])
    assert proposal.origin == "random"
    assert len(trials(driver)) == 20
    driver.tell(evaluated(0, 25))
    assert len(trials(driver)) == 21
    assert trials(driver)[-1].params == ToySpace().parameters(proposal.genome)


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_parameters_that_not_every_trial_has_come_from_parents_too(sampler: str) -> None:
    """Of a generation whose last digits are 3 alone, children have a 3 but for mutations."""

    class Threes(ToySpace):
        def seeds(self) -> dict[str, int]:
            return {f"{n}": n for n in range(3, 200, 10)}

    driver = make(sampler, population=80, space=Threes())
    driver._population = 10
    for slot in range(20):
        asked(driver, slot)
        driver.tell(evaluated(slot, slot))
    digits = [asked(driver, slot).genome % 10 for slot in range(20, 80)]
    assert digits.count(3) > 30  # all drawn at random: 6 ± 2.3


def test_known_layers_belong_to_the_first_generation() -> None:
    driver = make("nsga2", population=8)
    for slot in range(2):
        asked(driver, slot)
        driver.tell(evaluated(slot, slot))
    assert all(any("generation" in key for key in trial.system_attrs) for trial in trials(driver))


def test_samplers_that_cannot_do_it_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"sampler 'cmaes' takes one objective, got 2 \(o0, o1\); use tpe"):
        make("cmaes")
    with pytest.raises(RecipeError, match="takes numbers only, but odd is a choice; use tpe"):
        make("cmaes", space=ToySpace(objectives=1))
    with pytest.raises(UnknownNameError, match="unknown sampler 'tpa'; did you mean 'tpe'"):
        make("tpa")
    with pytest.raises(RecipeError, match=r"no settings, got 'driver\.p'"):
        DRIVERS["optuna"](ToySpace(), 8, {"p": 1})
    for sampler in SAMPLERS:
        make(sampler, space=ToySpace(objectives=1, choices=False))


def test_a_space_without_parameters_is_refused() -> None:
    class Untunable(ToySpace):
        suggest = None

    with pytest.raises(RecipeError, match="'toy' has none; use search evolve"):
        DRIVERS["optuna"](Untunable(), 8, {})


@pytest.mark.parametrize(("package", "sampler"), [("optuna", "tpe"), ("cmaes", "cmaes")])
def test_what_is_not_installed_is_named(package: str, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(BadInputError, match=rf"needs the package {package}, which is not installed; pip install"):
        make(sampler, space=ToySpace(objectives=1, choices=False))

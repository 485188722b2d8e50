"""``kill -9`` of a real digits run at random moments, then ``search resume``: as if nothing had happened.

And its two neighbours: the same seed again gives the same run, another seed gives another.
"""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import logged_evonorm
import pytest
from toy_runs import HELPERS, PATHS, content_of, n_told, processes_of

from layersearch.errors import StoreError
from layersearch.search.cli import main
from layersearch.search.lock import holder, run_state
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject

pytestmark = pytest.mark.slow

TINY = {
    "task.batch": 8, "task.quality_steps": 2, "task.fitness_steps": 4, "task.rerank_steps": 2, "task.rerank_width": 1,
    "task.validation_cap": 20, "funnel.quality_chance": 0, "funnel.early_step": 0, "funnel.stability_steps": 2,
}  # fmt: skip
"""A stage takes some 50 ms, and nearly everything that is finite passes it."""
OPTIONS = ("--lowering", "torch", "--evaluations", "3", "--population", "4", "--rerank-top", "1", "--deterministic")
SEED = "1"
LEFT_FOR_THE_END = 8  # results


class Whole(NamedTuple):
    """An undisturbed run."""

    content: JsonObject
    n_results: int


def arguments(name: str, seed: str, *more: str) -> list[str]:
    sets = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    return ["evolve", "--space", "logged", "--run", name, "--seed", seed, *OPTIONS, *sets, *more]


def run_here(folder: Path, name: str, seed: str, *more: str) -> Whole:
    """A run with one worker, in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments(name, seed, "--backend", "inline", "--runs-dir", str(folder), "--json", *more))
    assert code == 0, err.getvalue()
    assert json.loads(out.getvalue())["state"] == "finished"
    return Whole(content_of(folder / name), len(told(folder / name)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return run_here(tmp_path_factory.mktemp("whole"), "mine", SEED)


def told(run_dir: Path) -> dict[str, Any]:
    """Every stage result that the store holds, by candidate and stage."""
    try:
        with StoreReader(run_dir) as reader:
            numbers = [c.number for c in (*reader.candidates(), *reader.baselines())]
            return {f"{n} {r.stage}": r.outcome for n in numbers for r in reader.results(n)}
    except StoreError:
        return {}


def start(folder: Path, *command: str) -> "subprocess.Popen[str]":
    """The command line in a process; ``processes_of`` finds it and its children by their environment."""
    marks = {"TOY_RUN": str(folder / "mine"), logged_evonorm.LOG: str(folder / "log"), "PYTHONPATH": PATHS}
    return subprocess.Popen(
        [sys.executable, str(HELPERS / "logged_evonorm.py"), *command, "--runs-dir", str(folder), "--json"],
        env={**os.environ, **marks},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def begin_or_resume(folder: Path, *more: str) -> "subprocess.Popen[str]":
    if (folder / "mine").exists():
        return start(folder, "resume", "mine")
    return start(folder, *arguments("mine", SEED, *more))


def jobs_of(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


@contextlib.contextmanager
def nobody_left_over(run_dir: Path) -> Iterator[None]:
    """Workers end within 10 s of their runner."""
    yield
    end = time.monotonic() + 10
    while (left := processes_of(run_dir)) and time.monotonic() < end:
        time.sleep(0.02)
    assert left == []
    assert holder(run_dir) is None


@pytest.mark.parametrize(
    ("backend", "workers", "scheduler"), [("inline", "1", "straight"), ("pool", "2", "straight"), ("pool", "2", "asha")]
)
def test_killed_and_resumed_equals_undisturbed(
    tmp_path: Path, whole: Whole, rounds: int, backend: str, workers: str, scheduler: str
) -> None:
    rng, run_dir = random.Random(f"{backend} {rounds}"), tmp_path / "mine"
    more = ("--backend", backend, "--workers", workers, "--scheduler", scheduler)
    if scheduler != "straight":
        (tmp_path / "whole").mkdir()
        whole = run_here(tmp_path / "whole", "mine", SEED, "--scheduler", scheduler)
    results: dict[str, Any] = {}
    # Spread over the whole run, baselines, re-rank and test included.
    for goal in sorted(rng.randrange(whole.n_results - LEFT_FOR_THE_END) for _ in range(rounds)):
        n_jobs, deadline = len(jobs_of(tmp_path)), time.monotonic() + 60
        runner = begin_or_resume(tmp_path, *more)
        with nobody_left_over(run_dir):
            while n_told(run_dir) < goal and runner.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            # In the middle of a stage or, where the goal was reached before, of the start.
            time.sleep(rng.random() * (0.05 if len(results) < goal else 3.0))
            assert runner.poll() is None, runner.communicate()[1]
            os.kill(runner.pid, signal.SIGKILL)
            runner.communicate()
        assert not {*jobs_of(tmp_path)[n_jobs:]} & {*results}, "what was told is not run again"
        after = told(run_dir)
        assert all(after[job] == outcome for job, outcome in results.items()), "a told result was lost or changed"
        if after:
            with StoreReader(run_dir) as reader:
                assert run_state(reader) == "interrupted"
        results = after
    n_jobs = len(jobs_of(tmp_path))
    runner = begin_or_resume(tmp_path, *more)
    with nobody_left_over(run_dir):
        out, err = runner.communicate(timeout=120)
    assert runner.returncode == 0, err
    assert json.loads(out)["state"] == "finished"
    jobs = jobs_of(tmp_path)
    assert not {*jobs[n_jobs:]} & {*results}
    assert len(jobs) - len({*jobs}) <= rounds * int(workers), "only what was in flight runs again"
    assert content_of(run_dir) == whole.content


def test_the_same_seed_gives_the_same_run(tmp_path: Path, whole: Whole) -> None:
    assert run_here(tmp_path, "mine", SEED) == whole


def test_another_seed_gives_another(tmp_path: Path, whole: Whole) -> None:
    def evaluated(run: Whole) -> list[tuple[Any, Any]]:
        searched = [c for c in run.content["candidates"] if c["origin"] != "baseline"]
        return [(c["genome"], c["fitness"]) for c in searched if c["state"] == "evaluated"]

    both = evaluated(whole), evaluated(run_here(tmp_path, "mine", "2"))
    assert [len(found) for found in both] == [3, 3]
    assert not [found for found in both[0] if found in both[1]], "nor are its trainings those of the other seed"
    assert both[0][0][0] == both[1][0][0], "the seed layer is the same"
    assert both[0][1][0] != both[1][1][0]

"""``kill -9`` of the runner at random moments, then resume: as if nothing had happened, and nobody is left over."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from toy_runs import content_of, n_told, processes_of, run_toy, start_toy

from layersearch.errors import StoreError
from layersearch.search.lock import holder, run_state
from layersearch.search.store_reader import StoreReader

pytestmark = pytest.mark.slow

SPACE = {"sleep_s": 0.008}


def told(run_dir: Path) -> dict[tuple[int, str], Any]:
    """Every stage result that the store holds, by candidate and stage."""
    try:
        with StoreReader(run_dir) as reader:
            numbers = [c.number for c in (*reader.candidates(), *reader.baselines())]
            return {(n, r.stage): r.outcome for n in numbers for r in reader.results(n)}
    except StoreError:
        return {}


def wait_until_gone(run_dir: Path, seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (left := processes_of(run_dir)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


@pytest.mark.parametrize(
    ("backend", "workers", "scheduler"),
    [
        ("inline", 1, "straight"),
        ("pool", 2, "straight"),
        ("streams", 2, "straight"),
        ("pool", 2, "asha"),
        ("pool", 2, "racing"),
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    tmp_path: Path, rounds: int, backend: str, workers: int, scheduler: str
) -> None:
    n = (50 if scheduler != "asha" else 15) + 10 * rounds
    settings = {"backend": backend, "workers": workers, "evaluations": n, "seed": 3, "population": 8}
    settings |= {"scheduler": scheduler}
    timed = SPACE if scheduler == "straight" else SPACE | {"ratio": 3}
    run_toy(tmp_path / "whole", timed, **settings)
    n_results = n_told(tmp_path / "whole")
    space = timed | {"log": str(tmp_path / "log")}
    run_dir, rng, kills, results = tmp_path / "killed", random.Random(11), 0, {}
    while kills < rounds:
        runner = start_toy(run_dir, space, **settings)
        before = len(results)
        # Some kills come while the run starts, most after it got somewhere; about half of it is left for the end.
        wanted = before + rng.randrange(0, max(2, n_results // (rounds + 1)))
        deadline = time.monotonic() + 20
        while (seen := n_told(run_dir)) < wanted and runner.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        assert runner.poll() is None, "finished before it could be killed"
        os.kill(runner.pid, signal.SIGKILL)
        runner.communicate()
        kills += 1
        assert wait_until_gone(run_dir, 10) == []
        assert holder(run_dir) is None
        after = told(run_dir)
        assert len(after) >= seen, "a told result was lost"
        assert all(after[key] == outcome for key, outcome in results.items()), "a told result was changed"
        if (run_dir / "run.sqlite").is_file() and after:
            with StoreReader(run_dir) as reader:
                assert run_state(reader) == "interrupted"
                counts = reader.counts().to_json()
                assert counts.pop("asked") == sum(counts.pop("rejected").values()) + sum(counts.values())
        results = after
    runner = start_toy(run_dir, space, **settings)
    out, err = runner.communicate(timeout=60)
    assert (out, runner.returncode) == ("finished\n", 0), err
    assert err == ""
    assert wait_until_gone(run_dir, 10) == []

    killed, whole = content_of(run_dir), content_of(tmp_path / "whole")
    del killed["space"], whole["space"]
    assert killed == whole
    times = Counter((tmp_path / "log").read_text().splitlines())
    repeated = {job: n - 1 for job, n in times.items() if n > 1}
    assert sum(repeated.values()) <= kills * workers, f"only what was in flight runs again, not {json.dumps(repeated)}"


@pytest.mark.parametrize("trick", ["hang", "stuck"])
def test_workers_end_with_a_runner_that_is_killed_in_the_middle_of_a_stage(tmp_path: Path, trick: str) -> None:
    tricks = {str(n): trick for n in range(2000)}
    runner = start_toy(tmp_path / "a", {"tricks": tricks}, backend="pool", workers=2)
    try:
        deadline = time.monotonic() + 20
        while not told_asked(tmp_path / "a") and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        assert len(processes_of(tmp_path / "a")) >= 4, "runner, fork server and two workers"
        with pytest.raises(StoreError, match=f"held by process {runner.pid}"):
            run_toy(tmp_path / "a", {"tricks": tricks})
    finally:
        runner.kill()
        runner.communicate()
    assert wait_until_gone(tmp_path / "a", 10) == []


def told_asked(run_dir: Path) -> int:
    try:
        with StoreReader(run_dir) as reader:
            return reader.counts().asked
    except StoreError:
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["inline", "pool", "streams"])
def test_a_signal_to_the_whole_group_is_resumable(tmp_path: Path, backend: str, number: signal.Signals) -> None:
    """So a terminal sends Ctrl-C, and job schedulers SIGTERM: workers finish their stage, the runner saves."""
    settings = {"backend": backend, "workers": 2, "evaluations": 40}
    space = SPACE | {"log": str(tmp_path / "log")}
    runner = start_toy(tmp_path / "a", space, **settings)
    deadline = time.monotonic() + 20
    while n_told(tmp_path / "a") < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(runner.pid, number)
    out, err = runner.communicate(timeout=20)
    assert (out, err, runner.returncode) == ("interrupted\n", "", 0)
    assert wait_until_gone(tmp_path / "a", 10) == []
    assert run_toy(tmp_path / "a", space, **settings) == "finished"
    jobs = (tmp_path / "log").read_text().splitlines()
    assert len(set(jobs)) == len(jobs), "no stage was cut short"
    run_toy(tmp_path / "b", space, **settings)
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")

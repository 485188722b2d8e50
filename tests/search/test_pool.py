"""The pool: lost and stuck workers, shared data, nothing left over."""

import os
import signal
import time
import tracemalloc
from collections.abc import Iterator
from multiprocessing import forkserver
from typing import Any

import numpy as np
import pytest
from answers import answers
from toy_space import toy_spec

from layersearch.errors import RunError
from layersearch.search.executors import base
from layersearch.search.executors._shared_arrays import SharedArrays
from layersearch.search.executors.pool import PoolExecutor
from layersearch.spaces.contracts import Job


@pytest.fixture
def pool() -> Iterator[Any]:
    made: list[PoolExecutor] = []

    def build(workers: int = 2, **space: Any) -> PoolExecutor:
        spec = toy_spec(**{"reject_every": 0} | space)
        made.append(PoolExecutor(spec, spec.build(), workers))
        return made[-1]

    yield build
    for executor in made:
        executor.close(now=True)


def submit(executor: PoolExecutor, *genomes: int) -> None:
    for genome in genomes:
        executor.submit(Job(genome, "quality", {"n": genome}, seed=1))


def test_a_job_whose_worker_dies_runs_once_more(pool: Any) -> None:
    executor = pool(tricks={"2": "die", "3": "die-once"})
    submit(executor, *range(1, 9))
    found = answers(executor, 8)
    assert {g for g, (_, o) in found.items() if o.state != "passed"} == {2}
    assert found[2][1].reason == "the worker died (SIGKILL)"
    assert (found[2][0].attempt, found[3][0].attempt) == (1, 1)


def test_a_lost_stage_goes_on_from_where_it_was_saved_last(pool: Any) -> None:
    """``half`` of it is what the toy asserts on; the outcome is that of an undisturbed stage."""
    executor, whole = pool(tricks={"2": "save", "3": "save-once"}), pool()
    for some in (executor, whole):
        submit(some, 2, 3, 4)
    found, undisturbed = answers(executor, 3), answers(whole, 3)
    assert {g: o for g, (_, o) in found.items()} == {g: o for g, (_, o) in undisturbed.items()}
    assert {g: (job.attempt, job.checkpoint) for g, (job, _) in found.items()} == {
        2: (1, b"half of 2 1"),
        3: (1, b"half of 3 1"),
        4: (0, None),
    }


def test_a_stuck_worker_is_ended(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_GRACE_S", 1.0)
    executor = pool(tricks={"2": "hang"}, limit_s=0.1)
    submit(executor, 2, 3, 4)
    begun = time.monotonic()
    found = answers(executor, 3)
    assert time.monotonic() - begun >= 2 * 1.15
    assert [found[n][1].state for n in (2, 3, 4)] == ["failed", "passed", "passed"]
    assert found[2][0].attempt == 1
    assert found[2][1].reason == "the time limit of 0.1 s was exceeded and the worker was ended"


def test_an_idle_worker_that_died_is_replaced(pool: Any) -> None:
    executor = pool(workers=1)
    submit(executor, 1)
    answers(executor, 1)
    os.kill(executor._workers[0].process.pid or 0, signal.SIGKILL)
    submit(executor, 2)
    job, outcome = answers(executor, 1)[2]
    assert outcome.state == "passed"
    assert job.attempt <= 1


def test_a_killed_fork_server_is_made_again(pool: Any) -> None:
    executor = pool(sleep_s=0.05)
    submit(executor, 1, 2, 3, 4)
    answers(executor, 1)
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert set(answers(executor, 2)) <= {1, 2, 3, 4}
    executor.close(now=True)
    executor.close(now=True)


def test_workers_that_cannot_start_end_the_run_with_a_sentence(pool: Any) -> None:
    executor = pool(broken="dies")
    submit(executor, 1)
    with pytest.raises(RunError, match=r"3 in a row died before they were ready \(SIGKILL\)"):
        answers(executor, 1)


def test_closing_ends_the_workers_even_in_the_middle_of_a_stage(pool: Any) -> None:
    executor = pool(tricks={"1": "hang"})
    submit(executor, 1, 2)
    answers(executor, 1)
    pids = [worker.process.pid for worker in executor._workers]
    executor.close(now=True)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_was_started_ends_where_the_next_cannot_be(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    start = PoolExecutor._start

    def once(self: PoolExecutor) -> Any:
        if started:
            raise RunError("no room")
        started.append(start(self))
        return started[0]

    monkeypatch.setattr(PoolExecutor, "_start", once)
    with pytest.raises(RunError, match="no room"):
        pool()
    assert started[0].ended


def test_the_environment_and_the_main_module_are_as_before(pool: Any) -> None:
    import sys

    main, before = sys.modules["__main__"], dict(os.environ)
    pool()
    assert sys.modules["__main__"] is main
    assert dict(os.environ) == before


def test_shared_arrays_are_equal_and_private_to_write() -> None:
    arrays = {
        "x": np.arange(10, dtype=np.float32).reshape(2, 5),
        "labels": np.array([1, 2, 3], np.uint8),
        "none": np.zeros((0, 3)),
        "column": np.arange(6).reshape(2, 3).T,
        "large": np.zeros((1000, 1000)),
    }
    tracemalloc.start()
    shared = SharedArrays(arrays)
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20, "it is copied once, into the file"
    tracemalloc.stop()
    try:
        a, b = shared.arrays(), shared.arrays()
        for name, array in arrays.items():
            assert a[name].dtype == array.dtype
            np.testing.assert_array_equal(a[name], array)
        a["x"][0, 0] = 7
        assert b["x"][0, 0] == 0
    finally:
        shared.close()

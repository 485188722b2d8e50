"""What every executor promises; a new one is picked up from the registry."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from answers import answers
from toy_space import toy_spec

from layersearch.errors import DataError, LayerSearchError
from layersearch.search.executors.base import EXECUTORS, Executor
from layersearch.spaces.contracts import Job

Make = Callable[..., Executor]


@pytest.fixture(params=[pytest.param(b, marks=pytest.mark.ray if b == "ray" else ()) for b in EXECUTORS])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return str(request.param)


@pytest.fixture
def make(backend: str) -> Iterator[Make]:
    made: list[Executor] = []

    def build(workers: int = 2, **space: Any) -> Executor:
        spec = toy_spec(**{"reject_every": 0} | space)
        made.append(EXECUTORS[backend](spec, spec.build(), workers, "cpu"))
        return made[-1]

    yield build
    for executor in made:
        executor.close(now=True)
        executor.close()


def job(genome: int, stage: str = "quality") -> Job:
    return Job(genome, stage, {"n": genome}, seed=genome)


def test_every_job_is_answered_once(make: Make) -> None:
    executor = make()
    for genome in range(1, 31):
        executor.submit(job(genome))
    found = answers(executor, 30)
    assert set(found) == set(range(1, 31))
    assert executor.results(0.2) == []
    for genome, (answered, outcome) in found.items():
        assert answered == job(genome)
        assert outcome.state == "passed"
        assert outcome.checkpoint == f"{genome} {genome}".encode()
        assert outcome.duration_s > 0


def test_it_works_at_least_in_the_order_of_submission(make: Make, tmp_path: Path) -> None:
    executor = make(workers=1, log=str(tmp_path / "log"))
    for genome in (5, 3, 9, 1):
        executor.submit(job(genome))
    answers(executor, 4)
    assert (tmp_path / "log").read_text().split()[::2] == ["5", "3", "9", "1"]


def test_nothing_to_wait_for_is_no_wait(make: Make) -> None:
    executor = make()
    begun = time.monotonic()
    assert executor.results(None) == []
    assert executor.results(5) == []
    assert time.monotonic() - begun < 4


def test_an_exception_gets_another_try_and_then_is_a_failed_outcome(make: Make) -> None:
    executor = make(tricks={"2": "raise", "3": "raise-once"})
    for genome in (1, 2, 3, 4):
        executor.submit(job(genome))
    found = answers(executor, 4)
    assert {g: (o.state, j.attempt) for g, (j, o) in found.items()} == {
        1: ("passed", 0),
        2: ("failed", 1),
        3: ("passed", 1),
        4: ("passed", 0),
    }
    assert found[2][1].reason == "ValueError: cannot do 2"


def test_rejected_and_failed_outcomes_are_final(make: Make, tmp_path: Path) -> None:
    executor = make(tricks={"2": "reject", "3": "fail"}, log=str(tmp_path / "log"))
    executor.submit(job(2))
    executor.submit(job(3))
    found = answers(executor, 2)
    assert found[2][1].state == "rejected"
    assert (found[2][1].measured, found[2][1].limit) == (2.0, 2.0)
    assert found[3][1].state == "failed"
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_giving_up_at_the_time_limit_gets_another_try(make: Make, tmp_path: Path) -> None:
    executor = make(tricks={"2": "fail"}, limit_s=0.01, sleep_s=0.02, log=str(tmp_path / "log"))
    executor.submit(job(2))
    found = answers(executor, 1)
    assert (found[2][0].attempt, found[2][1].state) == (1, "failed")
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_jobs_can_be_submitted_while_others_run(make: Make) -> None:
    executor = make(sleep_s=0.01)
    executor.submit(job(1))
    executor.submit(job(2))
    n, found, end = 2, [], time.monotonic() + 120
    while len(found) < 12:
        assert time.monotonic() < end, "a job was lost"
        for answered, _ in executor.results(5):
            found.append(answered.candidate)
            n += 1
            executor.submit(job(n))
    assert len(set(found)) == len(found)


def test_missing_data_and_a_broken_evaluator_are_said(make: Make) -> None:
    with pytest.raises(DataError, match="toy data"):
        make(broken="data")
    with pytest.raises((LayerSearchError, ValueError), match="no such device"):
        ask_broken(make)


def ask_broken(make: Make) -> None:
    """An executor may notice when it is made or at the first job."""
    executor = make(broken="evaluator")
    executor.submit(job(1))
    executor.results(60)

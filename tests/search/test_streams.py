"""The streams backend: threads that share an evaluator find what one thread finds, and let go when told to."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import answers
from toy_runs import content_of, run_toy
from toy_space import toy_spec

from layersearch.errors import RecipeError, RunError
from layersearch.search.executors import streams
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.executors.streams import MOST_STREAMS, StreamsExecutor
from layersearch.spaces.contracts import Job, Outcome
from layersearch.spaces.evonorm.evaluate import KERNEL_FAILED
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.evonorm.settings import effective

TINY = {
    "task.fitness_steps": 6,
    "task.quality_steps": 4,
    "task.batch": 8,
    "task.validation_cap": 20,
    "funnel.quality_chance": 0.0,
    "funnel.early_step": 0,
}


def run(executor: StreamsExecutor, jobs: list[Job]) -> dict[int, tuple[Job, Outcome]]:
    for job in jobs:
        executor.submit(job)
    found = answers(executor, len(jobs))
    executor.close()
    return found


@pytest.mark.slow
def test_trainings_side_by_side_are_those_of_one_thread() -> None:
    spec = SpaceSpec("layersearch.spaces.evonorm.space:from_settings", effective("b", "digits", None, "smoke", TINY))
    space = spec.build()
    genomes = [space.to_json(PUBLISHED[name]) for name in ("evonorm-b0", "gn-relu")]
    jobs = [
        Job(k, f"quality:{network}", genome, seed=k // 2)
        for k, (genome, network) in enumerate(
            (genome, network) for genome in genomes for network in ("resnet", "mobilenetv2")
        )
    ]
    before = torch.get_rng_state()
    alone, together = (run(StreamsExecutor(spec, space, workers), jobs) for workers in (1, 2))
    assert alone == together
    assert all(outcome.state == "passed" and KERNEL_FAILED not in outcome.metrics for _, outcome in alone.values())
    assert torch.equal(torch.get_rng_state(), before), "no thread moves the generator of all"


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_threads_changes_nothing(tmp_path: Path, workers: int) -> None:
    space = {"sleep_s": 0.001, "tricks": {"299": "raise"}}
    run_toy(tmp_path / "streams", space, backend="streams", workers=workers)
    run_toy(tmp_path / "inline", space)
    assert content_of(tmp_path / "streams") == content_of(tmp_path / "inline")


def test_what_runs_is_abandoned_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(*_: Any) -> None:
        while True:
            time.sleep(0.001)

    spec = toy_spec()
    executor = StreamsExecutor(spec, spec.build(), 2)
    monkeypatch.setattr("toy_space.ToyEvaluator.run", forever)
    for n in range(3):
        executor.submit(Job(n, "quality", {"n": n}, seed=n))
    assert executor.results(0.05) == []
    begun = time.monotonic()
    executor.close(now=True)
    executor.close()
    assert time.monotonic() - begun < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream-")]


def test_the_cpu_time_of_a_job_is_that_of_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def burn(_: Any, job: Job, limit: float | None) -> Outcome:
        end = time.thread_time() + 0.1
        while job.candidate == 0 and time.thread_time() < end:
            pass
        time.sleep(0.3 if job.candidate else 0)
        return Outcome("passed")

    monkeypatch.setattr("toy_space.ToyEvaluator.run", burn)
    spec = toy_spec()
    found = run(StreamsExecutor(spec, spec.build(), 2), [Job(n, "quality", {"n": n}, seed=n) for n in (0, 1)])
    busy, idle = (found[n][1].cpu_s for n in (0, 1))
    assert idle < 0.05 < 0.1 <= busy


def test_a_lost_gpu_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: str) -> None:
        raise RunError("the GPU must answer")

    monkeypatch.setattr(streams, "_check_alive", lost)
    spec = toy_spec(tricks={"2": "fail"})
    executor = StreamsExecutor(spec, spec.build(), 2)
    executor.submit(Job(2, "quality", {"n": 2}, seed=2))
    with pytest.raises(RunError, match="must answer"):
        executor.results(10)
    executor.close(now=True)


def test_streams_are_not_shared() -> None:
    spec = toy_spec()
    with pytest.raises(RecipeError, match=f"at most {MOST_STREAMS}, got {MOST_STREAMS + 1}"):
        StreamsExecutor(spec, spec.build(), MOST_STREAMS + 1)

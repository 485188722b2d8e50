"""What comes back from an executor."""

import time

from layersearch.search.executors.base import Executor
from layersearch.spaces.contracts import Job, Outcome

__all__ = ["answers"]


def answers(executor: Executor, n: int) -> dict[int, tuple[Job, Outcome]]:
    """By candidate, those of ``n`` jobs: each once, and within two minutes."""
    found: dict[int, tuple[Job, Outcome]] = {}
    end = time.monotonic() + 120
    while len(found) < n:
        assert time.monotonic() < end, "a job was lost"
        for job, outcome in executor.results(5):
            assert job.candidate not in found, "a job was answered twice"
            found[job.candidate] = job, outcome
    return found

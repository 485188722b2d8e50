"""Runs jobs in this process, one at a time: the simplest backend, and the reference for the others."""

from collections import deque
from dataclasses import replace

from layersearch.search.executors.base import (
    EXECUTORS,
    Executor,
    Resources,
    SpaceSpec,
    allowed_seconds,
    run_timed,
    settle_torch,
)
from layersearch.spaces.contracts import Job, Outcome, Space

__all__ = ["InlineExecutor"]


class InlineExecutor:
    """``Executor`` without processes. Time limits are kept only by evaluators that look at them themselves.

    Raises: what the space raises when its data or evaluator cannot be made.
    """

    capacity = 1

    def __init__(self, spec: SpaceSpec, space: Space, workers: int = 1, device: str = "cpu") -> None:
        self._space, self._device = space, device
        self._data = space.load_data()
        self._waiting: deque[Job] = deque()
        self._start()
        self._limits = dict(self._evaluator.time_limits())

    def _start(self) -> None:
        settle_torch()
        self._evaluator = self._space.evaluator(self._data, self._device)
        settle_torch()

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def results(self, timeout_s: float | None = None) -> list[tuple[Job, Outcome]]:
        """Runs the job that was submitted first, however long it takes."""
        if not self._waiting:
            return []
        job = self._waiting.popleft()
        limit = allowed_seconds(self._limits, job)
        outcome, again = run_timed(self._evaluator, job, limit)
        if again:
            self._start()
            job = replace(job, attempt=job.attempt + 1)
            outcome, _ = run_timed(self._evaluator, job, limit)
        return [(job, outcome)]

    def close(self, now: bool = False) -> None:
        self._waiting.clear()


def _make(spec: SpaceSpec, space: Space, workers: int, device: str, resources: Resources | None = None, /) -> Executor:
    return InlineExecutor(spec, space, workers, device)


EXECUTORS.add("inline", _make)

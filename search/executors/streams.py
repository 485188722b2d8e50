"""Runs jobs in threads of this process, each on a CUDA stream of its own: small networks do not fill a GPU alone.

Processes would take turns on the GPU, and each would hold its own context and data. The threads share one evaluator,
which has to allow that. Python runs one of them at a time, so this pays where a stage is mostly launches that were
captured before, on a GPU; on a CPU use ``pool``.
"""

import ctypes
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from layersearch.errors import RecipeError, RunError
from layersearch.search.executors.base import (
    EXECUTORS,
    Executor,
    Resources,
    SpaceSpec,
    allowed_seconds,
    run_timed,
    settle_torch,
)
from layersearch.spaces.contracts import Evaluator, Job, Outcome, Space

__all__ = ["MOST_STREAMS", "StreamsExecutor"]

MOST_STREAMS = 16
"""torch has 32 streams per GPU and hands the first out again after the last: two threads must not share one."""

_END_S = 5.0


class _AbandonedError(SystemExit):
    """Raised in a thread whose job is not wanted any more. As SystemExit, it is silent even where nobody expects it."""


class StreamsExecutor:
    """``Executor`` of ``workers`` threads. Time limits are kept only by evaluators that look at them themselves.

    The CPU time of an outcome is that of its thread; what torch does for it in threads of its own is left out.
    All share the memory of the GPU: a candidate that finds none left has failed.

    Raises: RecipeError for too many workers; what the space raises when its data or evaluator cannot be made.
    """

    def __init__(self, spec: SpaceSpec, space: Space, workers: int = 1, device: str = "cpu") -> None:
        if workers > MOST_STREAMS:
            raise RecipeError(
                f"workers of the streams backend must be at most {MOST_STREAMS}, got {workers}; use fewer"
            )
        self.capacity = workers
        self._space, self._device = space, device
        self._data = space.load_data()
        self._evaluator = self._fresh()
        self._limits = dict(self._evaluator.time_limits())
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Job, Outcome] | Exception] = queue.SimpleQueue()
        self._n_open = 0
        self._threads = [threading.Thread(target=self._work, name=f"stream-{k}", daemon=True) for k in range(workers)]
        for thread in self._threads:
            thread.start()

    def _fresh(self) -> Evaluator:
        settle_torch()
        evaluator = self._space.evaluator(self._data, self._device)
        settle_torch()
        return evaluator

    def submit(self, job: Job) -> None:
        self._n_open += 1
        self._jobs.put(job)

    def results(self, timeout_s: float | None = None) -> list[tuple[Job, Outcome]]:
        """Raises: RunError when the GPU is lost."""
        found: list[tuple[Job, Outcome]] = []
        with suppress(queue.Empty):
            while self._n_open:
                wait_s = 0.0 if found else None if timeout_s is None else max(0.0, timeout_s)
                answer = self._answers.get(timeout=wait_s)
                if isinstance(answer, Exception):
                    raise answer
                self._n_open -= 1
                found.append(answer)
        return found

    def close(self, now: bool = False) -> None:
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        for thread in self._threads:
            self._jobs.put(None)
            if now:
                _abandon(thread)
        for thread in self._threads:
            # A thread that is left behind could bring down the interpreter at its end.
            thread.join(_END_S if now else None)
        self._n_open = 0

    def _work(self) -> None:
        with suppress(_AbandonedError):
            try:
                with _stream_of_its_own(self._device):
                    while (job := self._jobs.get()) is not None:
                        self._answers.put(self._answer(job))
            except Exception as error:
                self._answers.put(error)

    def _answer(self, job: Job) -> tuple[Job, Outcome]:
        limit = allowed_seconds(self._limits, job)
        outcome, again = run_timed(self._evaluator, job, limit, time.thread_time)
        if outcome.state == "failed":
            _check_alive(self._device)
        if again:
            job = replace(job, attempt=job.attempt + 1)
            outcome, _ = run_timed(self._fresh(), job, limit, time.thread_time)
        return job, outcome


def _abandon(thread: threading.Thread) -> None:
    """Ends a thread at its next instruction of Python; what it runs has ``finally`` to tidy up with."""
    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_AbandonedError))


@contextmanager
def _stream_of_its_own(device: str) -> Iterator[None]:
    if not device.startswith("cuda"):
        yield
        return
    import torch

    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        yield


def _check_alive(device: str) -> None:
    """Raises: RunError if the GPU refuses every call in this process, as it does after a kernel has gone astray."""
    if not device.startswith("cuda"):
        return
    import torch

    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as error:
        raise RunError(
            f"the GPU must answer, but refuses every call since a candidate failed ({str(error).splitlines()[0]}); "
            "resume with the pool backend, which replaces such workers"
        ) from error


def _make(spec: SpaceSpec, space: Space, workers: int, device: str, resources: Resources | None = None, /) -> Executor:
    return StreamsExecutor(spec, space, workers, device)


EXECUTORS.add("streams", _make)

"""Runs jobs in processes of this machine, which are forked after torch was imported and share one copy of the data."""

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Any

from layersearch.errors import RunError
from layersearch.search.executors._shared_arrays import SharedArrays
from layersearch.search.executors._worker import worker_main
from layersearch.search.executors.base import (
    EXECUTORS,
    MOST_DEATHS_AT_START,
    ONE_THREAD,
    Executor,
    Resources,
    SpaceSpec,
    allowed_seconds,
    died_at_start,
    ending_seconds,
)
from layersearch.spaces.contracts import Job, Outcome, Space

__all__ = ["PoolExecutor"]

_MOST_STARTS = 5
_END_S = 10.0


class _Worker:
    """One process with its pipe, and the job it has. ``limits`` is ``None`` until it is ready; ``saved`` is the latest
    checkpoint in the middle of the job."""

    def __init__(self, process: ForkServerProcess, connection: Connection, job: Job | None) -> None:
        self.process = process
        self.connection = connection
        self.job = job
        self.saved: bytes | None = None
        self.limits: dict[str, float] | None = None
        self.limit_s: float | None = None
        self.kill_at: float | None = None
        self.ended = False

    def give(self, job: Job) -> None:
        assert self.limits is not None, "only a ready worker gets a job"
        self.job, self.saved = job, None
        self.limit_s = allowed_seconds(self.limits, job)
        self.kill_at = None if self.limit_s is None else time.monotonic() + ending_seconds(self.limit_s)
        try:
            self.connection.send(job)
        except ConnectionError:
            return  # It has died; the loop finds its end and gives the job to another.

    def end(self, now: bool) -> None:
        """May be called twice."""
        if self.ended:
            return
        self.ended = True
        self.connection.close()
        if not now:
            self.process.join(_END_S)
        self.process.kill()
        self.process.join()
        self.process.close()


class PoolExecutor:
    """``Executor`` on ``workers`` processes. A job that lost its worker runs once more, on a fresh one, from where it
    was saved last.

    Args:
        spec: how each worker builds its space.
        space: the same, built here; loads the data.
    Raises: DataError if the data is missing; RunError when workers keep dying before they are ready.
    """

    def __init__(self, spec: SpaceSpec, space: Space, workers: int, device: str = "cpu") -> None:
        self.capacity = workers
        self._spec, self._device = spec, device
        self._data = SharedArrays(space.load_data())
        self._waiting: deque[Job] = deque()
        self._deaths_at_start = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(spec.preload))
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._start())
        except BaseException:
            for worker in self._workers:
                worker.end(now=True)
            self._data.close()
            raise

    def _start(self, job: Job | None = None) -> _Worker:
        for n in range(_MOST_STARTS):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=worker_main, args=(theirs, self._spec, self._data, self._device), name="layersearch-worker"
            )
            try:
                with _one_thread_for_children(), _main_not_imported(), _shielded_from_signals():
                    process.start()
            except (ConnectionError, EOFError):  # The fork server was killed; the next start makes a new one.
                ours.close()
                time.sleep(0.1 * 2**n)
                continue
            finally:
                theirs.close()
            return _Worker(process, ours, job)
        raise RunError("workers must start, but their fork server keeps dying; free memory, then resume the run")

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def results(self, timeout_s: float | None = None) -> list[tuple[Job, Outcome]]:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            for worker in self._workers:
                if self._waiting and worker.limits is not None and worker.job is None:
                    worker.give(self._waiting.popleft())
            if not self._waiting and all(worker.job is None for worker in self._workers):
                return []
            times = [worker.kill_at for worker in self._workers if worker.kill_at is not None]
            times += [] if end is None else [end]
            pause_s = max(0.0, min(times) - time.monotonic()) if times else None
            wait([c for w in self._workers for c in (w.connection, w.process.sentinel)], pause_s)
            done = [result for i in range(self.capacity) if (result := self._look_at(i)) is not None]
            if done or (end is not None and time.monotonic() >= end):
                return done

    def _look_at(self, i: int) -> tuple[Job, Outcome] | None:
        """Takes in what worker ``i`` has to say, or its end."""
        worker = self._workers[i]
        try:
            message: tuple[Any, ...] = worker.connection.recv() if worker.connection.poll() else ("silent",)
        except (EOFError, ConnectionError):
            return self._died(i)
        match message:
            case ("ready", limits):
                worker.limits = limits
                self._deaths_at_start = 0
                if worker.job is not None:
                    worker.give(worker.job)
            case ("saved", checkpoint):
                worker.saved = checkpoint
            case ("broken", error):
                raise error
            case ("done", outcome, True):
                return self._replace(i, outcome)
            case ("done", outcome, _):
                job, worker.job, worker.kill_at = worker.job, None, None
                assert job is not None, "a worker answers a job"
                return job, outcome
            case _ if not worker.process.is_alive():
                return self._died(i)
            case _ if worker.kill_at is not None and time.monotonic() >= worker.kill_at:
                reason = f"the time limit of {worker.limit_s:g} s was exceeded and the worker was ended"
                return self._replace(i, Outcome("failed", reason))
        return None

    def _died(self, i: int) -> tuple[Job, Outcome] | None:
        worker = self._workers[i]
        worker.process.join(_END_S)
        how = _how(worker.process.exitcode)
        if worker.limits is None:
            self._deaths_at_start += 1
            if self._deaths_at_start >= MOST_DEATHS_AT_START:
                raise died_at_start(how)
        return self._replace(i, Outcome("failed", f"the worker died ({how})"), worker.saved)

    def _replace(self, i: int, outcome: Outcome, saved: bytes | None = None) -> tuple[Job, Outcome] | None:
        """A fresh worker for worker ``i``. It gets the lost job; if that was the second try, ``outcome`` answers it.

        It goes on from what was ``saved``, unless a time limit ended it: a stage is to have as much as any other.
        """
        worker = self._workers[i]
        worker.end(now=True)
        job = worker.job
        if job is not None and worker.limits is not None:
            if job.attempt > 0:
                self._workers[i] = self._start()
                return job, outcome
            job = replace(job, attempt=job.attempt + 1, checkpoint=job.checkpoint if saved is None else saved)
        self._workers[i] = self._start(job)
        return None

    def close(self, now: bool = False) -> None:
        if not self._workers:
            return
        self._waiting.clear()
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.end(now)
        self._workers = []
        self._data.close()


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


@contextmanager
def _one_thread_for_children() -> Iterator[None]:
    """The fork server reads these when it imports torch, at the first start of a process."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _shielded_from_signals() -> Iterator[None]:
    """Fork server and workers are born with these blocked: one sent to the whole group is for the runner to answer."""
    resource_tracker.ensure_running()  # first: its start unblocks both
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_not_imported() -> Iterator[None]:
    """Keeps children from importing the main script again: workers need nothing of it, and it may lack a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _make(spec: SpaceSpec, space: Space, workers: int, device: str, resources: Resources | None = None, /) -> Executor:
    return PoolExecutor(spec, space, workers, device)


EXECUTORS.add("pool", _make)

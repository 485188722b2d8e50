"""Runs jobs on a Ray cluster: long-lived workers that keep data, compiled layers and their share of a GPU.

Built on actors of Ray core: Ray Tune costs 11 ms and more per trial, an actor call 0.3 ms. Ray is told to retry
nothing: a lost job is given out again here, where it is known how often that has happened, so each is answered once.
"""

import concurrent.futures
import heapq
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from layersearch.errors import LayerSearchError
from layersearch.search.executors._ray_actor import Answer, Ready, Saved
from layersearch.search.executors._ray_fleet import Fleet, reason_of
from layersearch.search.executors._ray_workers import Call, Estimates, Item, Worker
from layersearch.search.executors.base import EXECUTORS, Executor, Resources, SpaceSpec
from layersearch.spaces.contracts import Job, Outcome, Space

__all__ = ["RayExecutor"]

_END_S = 10.0

_Answered = list[tuple[Job, Outcome]]


class RayExecutor:
    """``Executor`` on up to ``workers`` actors, as many as the cluster has room for at the time.

    Args:
        spec: how each worker builds its space.
        space: the same, built here; loads the data.
        device: ``cpu`` or ``cuda``.
    Raises: DataError if the data is missing; BadInputError if the cluster cannot be joined or has not what is asked
        for; RunError when workers keep dying before they are ready.
    """

    def __init__(
        self,
        spec: SpaceSpec,
        space: Space,
        workers: int,
        device: str = "cpu",
        resources: Resources | None = None,
    ) -> None:
        self._waiting: deque[Item] = deque()
        self._retries: deque[Item] = deque()
        self._alone: deque[Item] = deque()
        self._quiet: str | None = None  # node that is kept for an item of ``_alone``
        self._n = 0  # jobs that are not answered
        self._hungry: dict[int, None] = {}  # workers that should get a call now, in the order they became so
        self._alarms: list[tuple[float, int, int]] = []  # when to look at which call of which worker
        self._events: SimpleQueue[tuple[Worker, Any]] = SimpleQueue()
        self._estimates = Estimates()
        asked = resources or Resources()
        gpus = float(device != "cpu") if asked.gpus_per_worker is None else asked.gpus_per_worker
        cpus = 1.0 if asked.cpus_per_worker is None else asked.cpus_per_worker
        self._fleet = Fleet(spec, space.load_data(), workers, cpus, gpus, asked.address, self._events)
        self._workers = self._fleet.workers

    @property
    def capacity(self) -> int:
        return max(1, len(self._workers)) * self._estimates.in_flight()

    def submit(self, job: Job) -> None:
        self._n += 1
        self._waiting.append(Item(job))

    def results(self, timeout_s: float | None = None) -> _Answered:
        end = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while self._n:
            if time.monotonic() >= self._fleet.look_at:
                self._fleet.fit()
            self._serve_alone()
            self._assign()
            done = self._take(min(end, self._fleet.look_at, self._alarms[0][0] if self._alarms else float("inf")))
            done += self._on_alarms()
            self._n -= len(done)
            if done or time.monotonic() >= end:
                return done
        return []

    # Giving out jobs

    def _assign(self) -> None:
        while self._hungry and (self._retries or self._waiting):
            idle = next((n for n in self._hungry if not self._workers[n].calls), None)
            if self._retries:
                # What was lost once may be to blame for it. It has an idle worker to itself: with other calls before or
                # behind it, the loss of that worker could be put down to the wrong one.
                found = self._place_of_retry()
                if found is not None:
                    item, worker = found
                    self._retries.remove(item)
                    self._send(worker, [item])
                    continue
                if idle is None or not self._waiting:
                    return
            number = next(iter(self._hungry)) if idle is None else idle
            most = -(-len(self._waiting) // len(self._hungry))
            self._send(self._workers[number], self._estimates.batch(self._waiting, most))

    def _place_of_retry(self) -> tuple[Item, Worker] | None:
        """The first retry that an idle worker may have, and that worker."""
        now = time.monotonic()
        ready = [(worker, worker.ready.node) for worker in self._workers.values() if worker.ready is not None]
        nodes = {node for _, node in ready}
        for item in self._retries:
            for worker, node in ready:
                idle = worker.number in self._hungry and not worker.calls
                if idle and (item.may_run_on(node, now) or nodes == {node}):
                    return item, worker
        return None

    def _send(self, worker: Worker, items: list[Item]) -> None:
        now = time.monotonic()
        call = worker.send(items, self._estimates, now)
        call.future.add_done_callback(lambda _: self._events.put((worker, call)))
        self._watch(worker, now)

    def _watch(self, worker: Worker, now: float) -> None:
        """Notes whether ``worker`` should get a call, or when to look at it again."""
        self._hungry.pop(worker.number, None)
        wants_at = worker.wants_at(now)
        quiet = worker.ready is not None and worker.ready.node == self._quiet
        if wants_at <= now and not quiet:
            self._hungry[worker.number] = None
        if worker.calls:
            for when in {wants_at, worker.kill_at()}:
                if now < when < float("inf"):
                    heapq.heappush(self._alarms, (when, worker.number, worker.calls[0].number))

    def _serve_alone(self) -> None:
        """Gives a job that needs it the memory of a node to itself, once that node is idle."""
        if not self._alone and self._quiet is None:
            return
        ready = [worker for worker in self._workers.values() if worker.ready is not None and not worker.spent]
        there = [worker for worker in ready if worker.ready is not None and worker.ready.node == self._quiet]
        if not there and ready:  # none was chosen, or it is lost
            load: dict[str, int] = {}
            for worker in ready:
                assert worker.ready is not None, "they were chosen so"
                load[worker.ready.node] = load.get(worker.ready.node, 0) + len(worker.calls)
            self._quiet = min(load, key=lambda node: load[node]) if self._alone else None
            there = [worker for worker in ready if worker.ready is not None and worker.ready.node == self._quiet]
        # A spent worker answers its last calls, and has its memory until then.
        here = [w for w in self._workers.values() if w.ready is not None and w.ready.node == self._quiet]
        if there and all(not worker.calls for worker in here):
            if self._alone:
                self._fleet.rest(there[1:])
                self._send(there[0], [self._alone.popleft()])
            else:
                self._quiet = None
        for worker in ready:
            self._watch(worker, time.monotonic())

    def _end(self, worker: Worker) -> None:
        self._hungry.pop(worker.number, None)
        self._fleet.end(worker)

    # Taking in what comes back

    def _take(self, until: float) -> _Answered:
        """Waits for an event, and takes in all that are there."""
        pause_s = max(0.0, min(until - time.monotonic(), 3600.0))
        done: _Answered = []
        try:
            event = self._events.get(timeout=pause_s)
            while True:
                done += self._on_event(*event)
                event = self._events.get_nowait()
        except Empty:
            return done

    def _on_event(self, worker: Worker, event: Any) -> _Answered:
        if worker.ended:
            return []
        if event is worker.asked:
            if worker.asked is not None and worker.asked.exception() is None:
                worker.saved()
                self._ask_saved(worker)
            return []
        if not isinstance(event, Call):
            return self._on_start(worker, event)
        if not worker.calls or all(call.number != event.number for call in worker.calls):
            return []
        return self._on_calls(worker)

    def _on_start(self, worker: Worker, future: "concurrent.futures.Future[Ready | LayerSearchError]") -> _Answered:
        error = future.exception()
        answer = None if error is not None else future.result()
        if isinstance(answer, LayerSearchError):
            raise answer
        if answer is None:
            self._fleet.died_at_start(worker, reason_of(error))
            return []
        self._fleet.is_ready(worker, answer)
        if answer.saves:
            self._ask_saved(worker)
        self._watch(worker, time.monotonic())
        return []

    def _ask_saved(self, worker: Worker) -> None:
        worker.ask_saved().add_done_callback(lambda asked: self._events.put((worker, asked)))

    def _on_calls(self, worker: Worker) -> _Answered:
        """Takes in the calls of ``worker`` that have come back, in the order in which they ran."""
        now = time.monotonic()
        done: _Answered = []
        while worker.calls and worker.calls[0].future.done():
            error = worker.calls[0].future.exception()
            if error is not None:
                too_big = "OutOfMemory" in type(error).__name__ or "memory monitor" in str(error)
                return done + self._lose(worker, f"the worker died ({reason_of(error)})", too_big, worker.saved())
            call = worker.pop(now)
            done += self._on_answers(worker, call)
        if worker.spent and not worker.calls:
            self._end(worker)
        else:
            self._watch(worker, now)
        return done

    def _on_answers(self, worker: Worker, call: Call) -> _Answered:
        answers: list[Answer] = call.future.result()
        done: _Answered = []
        for item, (outcome, verdict) in zip(call.items, answers, strict=False):
            if verdict != "done":
                worker.spent = True
                done += self._again(item, outcome, too_big=verdict == "too big")
            else:
                self._estimates.add(item.job.stage, outcome.duration_s)
                done.append((item.job, outcome))
        self._give_back(call.items[len(answers) :])
        return done

    def _lose(self, worker: Worker, reason: str, too_big: bool = False, saved: Saved | None = None) -> _Answered:
        """The jobs of a worker that is lost: of the call that ran, each counts one lost try; the rest had not begun.

        One goes on from what was ``saved``, unless a time limit ended it: a stage is to have as much as any other.
        """
        self._end(worker)
        calls = list(worker.calls)
        outcome = Outcome("failed", reason)
        node, now = None if worker.ready is None else worker.ready.node, time.monotonic()
        items = [replace(item, lost_on=node, lost_at=now) for item in calls[0].items]
        done = [answer for item in items for answer in self._again(item, outcome, too_big, saved)]
        self._give_back([item for call in calls[1:] for item in call.items])
        return done

    def _again(self, item: Item, outcome: Outcome, too_big: bool, saved: Saved | None = None) -> _Answered:
        """Lines up a job whose try was lost for another one; if it had its second, ``outcome`` answers it."""
        if too_big and item.alone:
            return [(item.job, replace(outcome, state="rejected", reason="too big"))]
        if not too_big and item.job.attempt > 0:
            return [(item.job, outcome)]
        job = replace(item.job, attempt=item.job.attempt + 1)
        if saved is not None and saved.is_of(job):
            job = replace(job, checkpoint=saved.checkpoint)
        self._give_back([replace(item, job=job, alone=item.alone or too_big)])
        return []

    def _give_back(self, items: Iterable[Item]) -> None:
        """To the front, in their order."""
        for item in reversed(list(items)):
            queue = self._alone if item.alone else self._retries if item.job.attempt else self._waiting
            queue.appendleft(item)

    def _on_alarms(self) -> _Answered:
        """Workers that are nearly done get a call; those over the time limit are ended."""
        now, done = time.monotonic(), []
        while self._alarms and self._alarms[0][0] <= now:
            _, number, call = heapq.heappop(self._alarms)
            worker = self._workers.get(number)
            if worker is None or not worker.calls or worker.calls[0].number != call:
                continue
            if worker.kill_at() <= now:
                limit_s = worker.calls[0].limit_s
                done += self._lose(worker, f"the time limit of {limit_s:g} s was exceeded and the worker was ended")
            else:
                self._watch(worker, now)
        return done

    def close(self, now: bool = False) -> None:
        if not now:
            running = [call.future for worker in self._workers.values() for call in worker.calls]
            concurrent.futures.wait(running, timeout=_END_S)
        self._n = 0
        self._waiting.clear()
        self._retries.clear()
        self._alone.clear()
        self._hungry.clear()
        self._fleet.close()


def _make(spec: SpaceSpec, space: Space, workers: int, device: str, resources: Resources | None = None, /) -> Executor:
    return RayExecutor(spec, space, workers, device, resources)


EXECUTORS.add("ray", _make)

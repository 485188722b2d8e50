"""Runs jobs on a Ray cluster: long-lived workers that keep data, compiled layers and their share of a GPU.

Built on actors of Ray core: Ray Tune costs 11 ms and more per trial, an actor call 0.3 ms. Ray is told to retry nothing: a
lost job is given out again here, where it is known how often that has happened, so each is answered once.
"""

import concurrent.futures
import heapq
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

import layersearch
from layersearch.errors import BadInputError, LayerSearchError, RunError
from layersearch.search.executors._ray_actor import Answer, RayWorker, Ready
from layersearch.search.executors._ray_cluster import Cluster
from layersearch.search.executors._ray_workers import Call, Estimates, Item, Worker
from layersearch.search.executors.base import EXECUTORS, Executor, Resources, SpaceSpec
from layersearch.spaces.contracts import Job, Outcome, Space

__all__ = ["AS_MANY_AS_FIT", "RayExecutor"]

AS_MANY_AS_FIT = 1024
"""Number of workers that stands for no number: the cluster is filled, as large as it is at the time."""

_LOOK_S = 2.0
_MOST_DEATHS_AT_START = 3
_START_S = 600.0
"""For a first worker: nodes of an autoscaling cluster may have to be bought and booted."""
_END_S = 10.0

_Answered = list[tuple[Job, Outcome]]


class RayExecutor:
    """``Executor`` on up to ``workers`` actors, as many as the cluster has room for at the time.

    Args:
        spec: how each worker builds its space.
        space: the same, built here; loads the data.
        device: ``cpu`` or ``cuda``.
    Raises: DataError if the data is missing; BadInputError if the cluster cannot be joined or has not what is asked for;
        RunError when workers keep dying before they are ready.
    """

    def __init__(
        self,
        spec: SpaceSpec,
        space: Space,
        workers: int,
        device: str = "cpu",
        resources: Resources | None = None,
    ) -> None:
        asked = resources or Resources()
        self._gpus = float(device != "cpu") if asked.gpus_per_worker is None else asked.gpus_per_worker
        self._cpus = 1.0 if asked.cpus_per_worker is None else asked.cpus_per_worker
        self._most = workers
        self._spec = spec
        data = {name: np.ascontiguousarray(array) for name, array in space.load_data().items()}
        local = min(workers, 64)
        self._cluster: Cluster | None = Cluster(
            asked.address, local, self._cpus, sum(array.nbytes for array in data.values())
        )
        self._waiting: deque[Item] = deque()
        self._alone: deque[Item] = deque()
        self._quiet: str | None = None  # node that is kept for an item of ``_alone``
        self._n = 0  # jobs that are not answered
        self._workers: dict[int, Worker] = {}
        self._hungry: dict[int, None] = {}  # workers that should get a call now, in the order they became so
        self._alarms: list[tuple[float, int, int]] = []  # when to look at which call of which worker
        self._events: SimpleQueue[tuple[Worker, Any]] = SimpleQueue()
        self._estimates = Estimates()
        self._deaths_at_start = 0
        self._ready_at = self._look_at = time.monotonic()
        try:
            import ray

            self._ray = ray
            self._check()
            self._data = ray.put(data)
            self._actor = ray.remote(
                num_cpus=self._cpus,
                num_gpus=self._gpus,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=1,
                scheduling_strategy="SPREAD",
            )(RayWorker)
            self._fit()
        except BaseException:
            self.close(now=True)
            raise

    @property
    def capacity(self) -> int:
        return max(1, len(self._workers)) * self._estimates.in_flight()

    def submit(self, job: Job) -> None:
        self._n += 1
        self._waiting.append(Item(job))

    def results(self, timeout_s: float | None = None) -> _Answered:
        end = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while self._n:
            if time.monotonic() >= self._look_at:
                self._fit()
            self._serve_alone()
            self._assign()
            done = self._take(min(end, self._look_at, self._alarms[0][0] if self._alarms else float("inf")))
            done += self._on_alarms()
            self._n -= len(done)
            if done or time.monotonic() >= end:
                return done
        return []

    # The number of workers

    def _check(self) -> None:
        """Raises: BadInputError if what was asked for is not there and nobody could add it."""
        assert self._cluster is not None, "called while it is open"
        nodes, largest = self._cluster.nodes(), self._cluster.largest()
        total = sum(node.get("GPU", 0.0) for node in nodes)
        asked = self._gpus * (1 if self._most == AS_MANY_AS_FIT else self._most)
        if asked > max(total, largest.get("GPU", 0.0)):
            raise BadInputError(
                f"GPUs must be in the cluster, got a need for {asked:g} where {total:g} are; "
                "ask for fewer --workers or --gpus-per-worker"
            )
        if not largest and not any(self._room(node) for node in nodes):
            raise BadInputError(
                f"a worker must fit on a node, got {self._cpus:g} CPUs and {self._gpus:g} GPUs per worker where no node "
                "has them; ask for less --cpus-per-worker or --gpus-per-worker"
            )

    def _room(self, node: dict[str, float]) -> int:
        """Workers that ``node`` can have."""
        needs = {"CPU": self._cpus, "GPU": self._gpus}
        return min(int(node.get(name, 0.0) / need + 1e-9) for name, need in needs.items() if need > 0)

    def _fit(self) -> None:
        """As many workers as the cluster has, or may get, room for."""
        assert self._cluster is not None, "called while it is open"
        now = time.monotonic()
        self._look_at = now + _LOOK_S
        room = max(sum(map(self._room, self._cluster.nodes())), self._room(self._cluster.largest()))
        target = min(self._most, max(1, room))
        for worker in list(self._workers.values()):
            if worker.ready is not None:
                self._ready_at = now
            elif len(self._workers) > target or now - worker.born > _START_S:
                self._end(worker)
        while len(self._workers) < target:
            self._start(now)
        if now - self._ready_at > _START_S:
            raise RunError(
                f"a worker must start within {_START_S:g} s, but none of {len(self._workers)} did: the cluster is taken by "
                "others, or too small; make room, then resume the run"
            )

    def _start(self, now: float) -> None:
        worker = Worker(self._actor.remote(self._gpus), now)
        self._workers[worker.number] = worker
        future = worker.actor.start.remote(self._spec, self._data).future()
        future.add_done_callback(lambda done: self._events.put((worker, done)))

    def _end(self, worker: Worker) -> None:
        worker.ended = True
        self._workers.pop(worker.number, None)
        self._hungry.pop(worker.number, None)
        self._ray.kill(worker.actor)  # also one that is stopped: its node then ends the process

    # Giving out jobs

    def _assign(self) -> None:
        while self._waiting and self._hungry:
            number = next((n for n in self._hungry if not self._workers[n].calls), next(iter(self._hungry)))
            most = -(-len(self._waiting) // len(self._hungry))
            self._send(self._workers[number], self._estimates.batch(self._waiting, most))

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
        if there and all(not worker.calls for worker in there):
            if self._alone:
                for other in there[1:]:
                    other.actor.rest.remote()
                self._send(there[0], [self._alone.popleft()])
            else:
                self._quiet = None
        for worker in ready:
            self._watch(worker, time.monotonic())

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
            return self._died_at_start(worker, error)
        if answer.version != layersearch.__version__:
            raise BadInputError(
                f"layersearch must be one version everywhere, got {answer.version} on a node of the cluster and "
                f"{layersearch.__version__} here; install the same"
            )
        self._deaths_at_start = 0
        worker.ready = answer
        self._watch(worker, time.monotonic())
        return []

    def _died_at_start(self, worker: Worker, error: BaseException | None) -> _Answered:
        self._end(worker)
        self._look_at = 0.0
        self._deaths_at_start += 1
        if "No module named" in str(error):
            raise BadInputError(
                f"layersearch must be installed on every node of the cluster, but it is not ({_reason(error)}); "
                f"pip install layersearch=={layersearch.__version__} there"
            )
        if self._deaths_at_start >= _MOST_DEATHS_AT_START:
            raise RunError(
                f"workers must start, but {_MOST_DEATHS_AT_START} in a row died before they were ready "
                f"({_reason(error)}); use fewer workers or free memory, then resume the run"
            )
        return []

    def _on_calls(self, worker: Worker) -> _Answered:
        """Takes in the calls of ``worker`` that have come back, in the order in which they ran."""
        now = time.monotonic()
        done: _Answered = []
        while worker.calls and worker.calls[0].future.done():
            error = worker.calls[0].future.exception()
            if error is not None:
                too_big = "OutOfMemory" in type(error).__name__ or "memory monitor" in str(error)
                return done + self._lose(worker, f"the worker died ({_reason(error)})", too_big)
            call = worker.pop(now)
            done += self._on_answers(worker, call)
        if worker.spent and not worker.calls:
            self._end(worker)
            self._look_at = 0.0
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

    def _lose(self, worker: Worker, reason: str, too_big: bool = False) -> _Answered:
        """The jobs of a worker that is lost: of the call that ran, each counts one lost try; the rest had not begun."""
        self._end(worker)
        self._look_at = 0.0
        calls = list(worker.calls)
        done = [answer for item in calls[0].items for answer in self._again(item, Outcome("failed", reason), too_big)]
        self._give_back([item for call in calls[1:] for item in call.items])
        return done

    def _again(self, item: Item, outcome: Outcome, too_big: bool) -> _Answered:
        """Lines up a job whose try was lost for another one; if it had its second, ``outcome`` answers it."""
        if too_big and item.alone:
            limits = {"metrics": outcome.metrics, "duration_s": outcome.duration_s, "cpu_s": outcome.cpu_s}
            return [(item.job, Outcome("rejected", "too big", **limits))]
        if not too_big and item.job.attempt > 0:
            return [(item.job, outcome)]
        self._give_back([Item(replace(item.job, attempt=item.job.attempt + 1), item.alone or too_big)])
        return []

    def _give_back(self, items: Iterable[Item]) -> None:
        """To the front, in their order."""
        for item in reversed(list(items)):
            (self._alone if item.alone else self._waiting).appendleft(item)

    def _on_alarms(self) -> _Answered:
        """Workers that are nearly done get a call; those over the time limit are ended."""
        now, done = time.monotonic(), []
        while self._alarms and self._alarms[0][0] <= now:
            _, number, call = heapq.heappop(self._alarms)
            worker = self._workers.get(number)
            if worker is None or not worker.calls or worker.calls[0].number != call:
                continue
            if worker.kill_at() <= now:
                limit_s = worker.limit_s()
                done += self._lose(worker, f"the time limit of {limit_s:g} s was exceeded and the worker was ended")
            else:
                self._watch(worker, now)
        return done

    def close(self, now: bool = False) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is None:
            return
        try:
            if not now:
                running = [call.future for worker in self._workers.values() for call in worker.calls]
                concurrent.futures.wait(running, timeout=_END_S)
            for worker in list(self._workers.values()):
                self._end(worker)
        finally:
            self._n = 0
            self._waiting.clear()
            self._data = None
            cluster.close()


def _reason(error: BaseException | None) -> str:
    """What happened, in a few words of the long texts that Ray has for it."""
    text = str(error)
    for words in ("SIGKILL", "SIGSEGV", "node died", "NodeDied", "No module named"):
        if words in text and words != "SIGKILL":
            line = next(line for line in text.splitlines() if words in line)
            return line.strip()[:200]
    detail = text.partition("Worker exit detail: ")[2] or text
    return " ".join(detail.split(". ")[0].split())[:200] or type(error).__name__


def _make(spec: SpaceSpec, space: Space, workers: int, device: str, resources: Resources | None = None, /) -> Executor:
    return RayExecutor(spec, space, workers, device, resources)


EXECUTORS.add("ray", _make)

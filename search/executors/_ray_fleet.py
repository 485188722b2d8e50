"""The workers of a run on a cluster: as many as it has room for, while nodes join and leave."""

import concurrent.futures
import importlib
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

import layersearch
from layersearch.errors import BadInputError, RunError
from layersearch.search.executors._ray_actor import SAVES, RayWorker, Ready
from layersearch.search.executors._ray_aside import Aside
from layersearch.search.executors._ray_cluster import Cluster
from layersearch.search.executors._ray_workers import Worker
from layersearch.search.executors.base import AS_MANY_AS_FIT, MOST_DEATHS_AT_START, SpaceSpec, died_at_start
from layersearch.spaces.contracts import Arrays

__all__ = ["Fleet", "reason_of"]

_LOOK_S = 2.0
_SOON_S = 0.2
_SILENT_S = 5.0
_HEAD_S = 30.0
"""A head may be started again; Ray itself ends this process when it was gone for 60 s."""
_END_S = 10.0
_MOST_LOCAL_WORKERS = 64
_REST_S = 5.0
_START_S = 600.0
"""For a first worker: nodes of an autoscaling cluster may have to be bought and booted."""


class Fleet:
    """Keeps ``workers`` (by number) as many as fit, at most ``most``; what ``start`` of each said goes to ``events``.

    Args:
        data: put into the object store once; each node gets one copy, which its workers share.
        cpus, gpus: that a worker takes.
        address: as for ``Cluster``.
    Raises: as RayExecutor.
    """

    def __init__(
        self,
        spec: SpaceSpec,
        data: Arrays,
        most: int,
        cpus: float,
        gpus: float,
        address: str | None,
        events: "SimpleQueue[tuple[Worker, Any]]",
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self.look_at = self._ready_at = time.monotonic()
        self._spec, self._most, self._cpus, self._gpus, self._events = spec, most, cpus, gpus, events
        self._deaths_at_start = 0
        self._aside = Aside()
        self._look: Future[list[dict[str, float]]] | None = None
        self._heard_at = self.look_at  # of the head
        arrays = {name: np.ascontiguousarray(array) for name, array in data.items()}
        n_bytes = sum(array.nbytes for array in arrays.values())
        self._cluster = Cluster(address, min(most, _MOST_LOCAL_WORKERS), cpus, n_bytes)
        try:
            self._ray: Any = importlib.import_module("ray")
            self._largest = self._cluster.largest()
            self._nodes = self._cluster.nodes()
            self._check()
            self._data: Any = self._ray.put(arrays)
            options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
            never = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {SAVES: 1}}
            self._actor: Any = self._ray.remote(**options, **never)(RayWorker)
            self.fit()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Raises: BadInputError if what was asked for is not there and nobody could add it."""
        nodes, largest = self._nodes, self._largest
        total = sum(node.get("GPU", 0.0) for node in nodes)
        asked = self._gpus * (1 if self._most == AS_MANY_AS_FIT else self._most)
        if asked > max(total, largest.get("GPU", 0.0)):
            raise BadInputError(
                f"GPUs must be in the cluster, got a need for {asked:g} where {total:g} are; "
                "ask for fewer --workers or --gpus-per-worker"
            )
        if not largest and not any(self._room(node) for node in nodes):
            raise BadInputError(
                f"a worker must fit on a node, got {self._cpus:g} CPUs and {self._gpus:g} GPUs per worker, and none "
                "has them; ask for less --cpus-per-worker or --gpus-per-worker"
            )

    def _room(self, node: dict[str, float]) -> int:
        """Workers that ``node`` can have."""
        needs = {"CPU": self._cpus, "GPU": self._gpus}
        return min(int(node.get(name, 0.0) / need + 1e-9) for name, need in needs.items() if need > 0)

    def fit(self) -> None:
        """As many workers as the cluster has, or may get, room for.

        Raises: RunError if none starts for long, or the head of the cluster is gone.
        """
        now = time.monotonic()
        self._hear(now)
        room = max(sum(map(self._room, self._nodes)), self._room(self._largest))
        target = min(self._most, max(1, room))
        for worker in list(self.workers.values()):
            if worker.ready is not None:
                self._ready_at = now
            elif len(self.workers) > target or now - worker.born > _START_S:
                self.end(worker)
        self.look_at = now + (_SOON_S if self._look is not None else _LOOK_S)
        while len(self.workers) < target and now - self._heard_at < _SILENT_S:
            self._start(now)
        if now - self._ready_at > _START_S:
            raise RunError(
                f"a worker must start within {_START_S:g} s, but none of {len(self.workers)} did: the cluster is taken "
                "by others, or too small; make room, then resume the run"
            )

    def _hear(self, now: float) -> None:
        """Takes in which nodes there are, or asks again. Raises: RunError if there was no answer for long."""
        if self._look is None:
            self._look = self._aside.call(self._cluster.nodes)
            self._heard_at = now
        elif self._look.done() and self._look.exception() is None:
            self._nodes, self._look, self._heard_at = self._look.result(), None, now
        elif now - self._heard_at > _HEAD_S:
            self._cluster.lost = True
            raise RunError(
                f"the head of the cluster must answer, but it has not for {_HEAD_S:g} s; resume the run when it is "
                "back, or on another cluster"
            )
        elif self._look.done():
            self._look = self._aside.call(self._cluster.nodes)

    def _start(self, now: float) -> None:
        worker = Worker(self._actor.remote(self._gpus), now)
        self.workers[worker.number] = worker
        future = worker.actor.start.remote(self._spec, self._data).future()
        future.add_done_callback(lambda done: self._events.put((worker, done)))

    def is_ready(self, worker: Worker, ready: Ready) -> None:
        """Raises: BadInputError if it is of another version."""
        if ready.version != layersearch.__version__:
            raise BadInputError(
                f"layersearch must be one version everywhere, got {ready.version} on a node of the cluster and "
                f"{layersearch.__version__} here; install the same"
            )
        self._deaths_at_start = 0
        worker.ready = ready

    def died_at_start(self, worker: Worker, reason: str) -> None:
        """Raises: BadInputError or RunError if there is no use in trying on."""
        self.end(worker)
        self._deaths_at_start += 1
        if "No module named" in reason:
            raise BadInputError(
                f"layersearch must be installed on every node of the cluster, but it is not ({reason}); "
                f"pip install layersearch=={layersearch.__version__} there"
            )
        if self._deaths_at_start >= MOST_DEATHS_AT_START:
            raise died_at_start(reason)

    def end(self, worker: Worker) -> None:
        """Ends its process, also one that is stopped or never lets go; ``fit`` is due to replace it."""
        worker.ended = True
        self.workers.pop(worker.number, None)
        self._aside.call(partial(self._ray.kill, worker.actor))
        self.look_at = 0.0

    def rest(self, workers: Sequence[Worker]) -> None:
        """Has idle workers give back memory that they hold for speed only."""
        asked = [worker.actor.rest.remote() for worker in workers]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=_REST_S)

    def close(self) -> None:
        """May be called twice."""
        for worker in list(self.workers.values()):
            self.end(worker)
        if not self._cluster.lost and not self._aside.ended:
            concurrent.futures.wait([self._aside.call(_nothing)], timeout=_END_S)  # workers are ended by then
        self._aside.end()
        self._data = None
        self._cluster.close()


def _nothing() -> None:
    """A call that waits for those before it."""


def reason_of(error: BaseException | None) -> str:
    """What happened to a worker, in the few words that matter of the long texts that Ray has for it."""
    text = str(error)
    for words in ("No module named", "node died", "node was terminated"):
        line = next((line.strip() for line in text.splitlines() if words in line), None)
        if line is not None:
            return line[:200]
    detail = text.partition("Worker exit detail: ")[2] or text
    return " ".join(detail.split(". ")[0].split())[:200] or type(error).__name__

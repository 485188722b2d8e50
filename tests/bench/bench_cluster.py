"""How much of a cluster one driver can feed, and what a long run costs it in time and memory: workers only sleep.

No machine of a thousand workers is at hand, so they are stand-ins inside this process. Two parts:

- ``workers``: the real ``RayExecutor`` on stand-in actors that answer a job after 5 to 15 s each, in real time. Beyond
  what is measured here, Ray itself takes about 0.15 core-ms of this process per call (measured apart, with no-ops).
- ``told``: an executor that sleeps in no time at all (it hands back the job that is due next), for the cost of a result
  and the memory of this process as candidates add up.

Both run whole searches: driver, screen, dedup, store on disk. The genomes of ``evonorm`` are real, so is their screen.

python tests/bench/bench_cluster.py [SECONDS_PER_ROW [CANDIDATES]]    0 leaves out a part
"""

import heapq
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from common import environment, table
from toy_burn import burn_spec

from layersearch.search.executors import ray as ray_module
from layersearch.search.executors._ray_actor import Answer, Ready
from layersearch.search.executors._ray_fleet import Fleet
from layersearch.search.executors._ray_workers import Worker
from layersearch.search.executors.base import EXECUTORS, Resources, SpaceSpec
from layersearch.search.executors.ray import RayExecutor
from layersearch.search.runner import RunEvent, Runner, RunSettings
from layersearch.spaces.contracts import Job, Outcome, Space, Stage
from layersearch.spaces.evonorm.settings import effective

__all__: list[str] = []

STAGE_S = 10.0
WORKERS = (100, 1_000)
RAY_CALL_S = 0.00015
"""CPU of the driver's process per actor call, of Ray 2.60 with no-ops."""
CHECKPOINT_BYTES = 100_000
EVONORM = "layersearch.spaces.evonorm.space:from_settings"


class Answers:
    """What a worker would say of a job: all stages are passed, the last one measures every objective."""

    def __init__(self, space: Space) -> None:
        self.objectives = space.objectives
        self.last = space.stages[-1].id
        self.resumed = {stage.resumes for stage in space.stages}
        self.stages: Sequence[Stage] = space.stages

    def of(self, job: Job) -> Outcome:
        fitness = {o.name: (job.seed + i) % 1000 / 1000 for i, o in enumerate(self.objectives)}
        checkpoint = None
        if job.stage in self.resumed:
            checkpoint = job.seed.to_bytes(8, "big") * (CHECKPOINT_BYTES // 8)
        measured = fitness if job.stage == self.last else {}
        return Outcome("passed", fitness=measured, checkpoint=checkpoint, duration_s=STAGE_S, cpu_s=STAGE_S)

    def seconds(self, job: Job) -> float:
        """``STAGE_S`` in the mean; the stages of a candidate share a seed, but not their durations."""
        return STAGE_S * (0.5 + random.Random(f"{job.seed} {job.stage}").random())


# --- real time, real executor, stand-in actors ------------------------------------------------------------------------


class Sleepers:
    """Fulfils promises when they are due, in a thread."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.due: list[tuple[float, int, Future[list[Answer]], list[Job]]] = []
        self.n = 0
        self.changed = threading.Condition()
        threading.Thread(target=self.work, daemon=True).start()

    def add(self, when: float, jobs: list[Job]) -> "Future[list[Answer]]":
        future: Future[list[Answer]] = Future()
        with self.changed:
            self.n += 1
            heapq.heappush(self.due, (when, self.n, future, jobs))
            self.changed.notify()
        return future

    def work(self) -> None:
        while True:
            with self.changed:
                while not self.due or self.due[0][0] > time.monotonic():
                    self.changed.wait(self.due[0][0] - time.monotonic() if self.due else None)
                _, _, future, jobs = heapq.heappop(self.due)
            future.set_result([(self.answers.of(job), "done") for job in jobs])


class Promise:
    def __init__(self, future: "Future[Any]") -> None:
        self._future = future

    def future(self) -> "Future[Any]":
        return self._future


class SleepingActor:
    """Takes a call after the other, each for ``STAGE_S`` per job."""

    def __init__(self, sleepers: Sleepers) -> None:
        self.sleepers = sleepers
        self.free_at = 0.0
        self.run = self

    def remote(self, jobs: list[Job]) -> Promise:
        self.free_at = max(self.free_at, time.monotonic()) + sum(map(self.sleepers.answers.seconds, jobs))
        return Promise(self.sleepers.add(self.free_at, jobs))


class SleepingFleet:
    """In place of ``Fleet``: its workers are there at once and stay."""

    look_at = float("inf")

    def __init__(self, workers: int, answers: Answers, events: Any) -> None:
        sleepers, now = Sleepers(answers), time.monotonic()
        limits = {stage.id: 10 * STAGE_S for stage in answers.stages}
        self.workers: dict[int, Worker] = {}
        for i in range(workers):
            worker = Worker(SleepingActor(sleepers), now)
            self.workers[worker.number] = worker
            ready: Future[Ready] = Future()
            ready.set_result(Ready(limits, f"node-{i // 8}", ""))
            events.put((worker, ready))

    def is_ready(self, worker: Worker, ready: Ready) -> None:
        worker.ready = ready

    def fit(self) -> None: ...

    def close(self) -> None: ...


def sleeping_ray(spec: SpaceSpec, space: Space, workers: int, device: str, given: Resources | None = None) -> Any:
    def make(*arguments: Any) -> Fleet:
        return cast(Fleet, SleepingFleet(arguments[2], Answers(space), arguments[-1]))

    original, ray_module.Fleet = ray_module.Fleet, make  # type: ignore[assignment,misc]
    try:
        return RayExecutor(spec, space, workers, device, given)
    finally:
        ray_module.Fleet = original  # type: ignore[misc]


# --- no time at all ---------------------------------------------------------------------------------------------------


class Hasty:
    """``Executor`` of ``workers`` whose job that is due next comes back at once."""

    def __init__(self, spec: SpaceSpec, space: Space, workers: int, device: str, _: Resources | None = None) -> None:
        self.capacity = 2 * workers
        self.answers = Answers(space)
        self.due: list[tuple[float, int, Job]] = []
        self.now, self.n = 0.0, 0

    def submit(self, job: Job) -> None:
        self.n += 1
        heapq.heappush(self.due, (self.now + self.answers.seconds(job), self.n, job))

    def results(self, timeout_s: float | None = None) -> list[tuple[Job, Outcome]]:
        if not self.due:
            return []
        self.now, _, job = heapq.heappop(self.due)
        return [(job, self.answers.of(job))]

    def close(self, now: bool = False) -> None:
        self.due.clear()


EXECUTORS.add("sleeping-ray", sleeping_ray)
EXECUTORS.add("hasty", Hasty)


# --- measurement ------------------------------------------------------------------------------------------------------


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def spec_of(space: str) -> SpaceSpec:
    if space == "evonorm":
        return SpaceSpec(EVONORM, effective("b", "digits", None, "small", {"lowering.name": "torch"}))
    return burn_spec(iterations=0, checkpoint_bytes=0, short=True)


def feed(folder: Path, space: str, workers: int, seconds: float) -> dict[str, object]:
    """A search in real time, measured for ``seconds`` from some two answers of each worker on.

    ``start``: core-seconds up to the first answer, most of it for candidates to fill the cluster with.
    """
    folder.mkdir()
    points: list[tuple[float, float]] = []
    told = 0
    begin_s = time.process_time()

    def note(event: RunEvent) -> None:
        nonlocal told
        now = time.perf_counter()
        first = not points and event.kind == "result"
        if first or (len(points) == 1 and now - points[0][0] > 2 * STAGE_S):
            points.append((now, time.process_time()))
        elif len(points) == 2:
            told += event.kind == "result"
            if now - points[1][0] > seconds:
                points.append((now, time.process_time()))
                raise KeyboardInterrupt  # ends the run at once

    settings = RunSettings(evaluations=10_000_000, population=100, backend="sleeping-ray", workers=workers)
    Runner(folder, spec_of(space), settings, note).run()
    wall, cpu = points[2][0] - points[1][0], points[2][1] - points[1][1]
    per_told = cpu / max(1, told)
    return {
        "start, core-s": points[0][1] - begin_s,
        "told": told,
        "of ideal": told * STAGE_S / wall / workers,
        "core-ms per told": 1e3 * per_told,
        "+ Ray's": 1e3 * (per_told + RAY_CALL_S),
        "core %": 100 * cpu / wall,
        "feeds workers": round(STAGE_S / (per_told + RAY_CALL_S)),
    }


def pile_up(folder: Path, candidates: int) -> dict[str, dict[str, object]]:
    """A search of ``candidates`` in no time: cost of the last tenth before each point, and memory there."""
    folder.mkdir()
    points = sorted({candidates // 10, candidates // 2, candidates})
    starts = {point - point // 10: point for point in points}
    rows: dict[str, dict[str, object]] = {}
    open_: dict[int, float] = {}
    told = 0
    before = resident_mb()

    def note(event: RunEvent) -> None:
        nonlocal told
        if event.phase != "search":
            raise KeyboardInterrupt
        if event.kind != "result":
            return
        told += 1
        if told in starts:
            open_[starts[told]] = time.process_time()
        if told in open_:
            per_told = (time.process_time() - open_[told]) / (told // 10)
            more = resident_mb() - before
            rows[f"{told} told"] = {
                "core-ms per told": 1e3 * per_told,
                "MB more": more,
                "bytes per candidate": more * 2**20 / told,
            }

    settings = RunSettings(evaluations=candidates, population=100, backend="hasty", workers=1_000, rerank_top=0)
    Runner(folder, spec_of("toy"), settings, note).run()
    return rows


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    candidates = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    print(environment("ray"))
    with tempfile.TemporaryDirectory() as folder:
        if candidates:
            rows = pile_up(Path(folder) / "told", candidates)
            table("1,000 workers that sleep in no time: results and memory (flat is the goal)", rows)
        for space in ("toy", "evonorm") if seconds else ():
            built = spec_of(space).build()
            built.probe(built.sample(random.Random(0)))  # imports what it needs
            fed = {f"{n} workers": feed(Path(folder) / f"{space}-{n}", space, n, seconds) for n in WORKERS}
            table(f"{space}: stages of {STAGE_S:g} s on stand-ins of Ray workers, in real time", fed)


if __name__ == "__main__":
    main()

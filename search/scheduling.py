"""Takes candidates through their stages: which job is next, what its result means, and what is written down."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from layersearch.search.candidate import Finish, StageResult
from layersearch.search.executors.base import Executor
from layersearch.search.store import Store
from layersearch.search.store_checkpoints import Checkpoints
from layersearch.spaces.contracts import Job, JsonObject, Objective, Outcome, Stage

__all__ = ["Dispatcher", "Report", "Track", "finish_of", "finite", "training_of"]


@dataclass
class Track:
    """A candidate on its way: stage after stage, until one is not passed.

    Args:
        order: which track is served first; the lowest.
        stages: to go through in this phase of the run.
        seed: of the job of a stage, by stage id.
        settle: what becomes of the candidate, asked after each result, before it is written down.
        done: results by stage id, earlier phases included.
        over: there is no next stage, now (``paused``) or ever (``stopped``).
        seen: as of the candidate.
    """

    candidate: int
    order: int
    genome: JsonObject
    stages: Sequence[Stage]
    seed: Callable[[str], int]
    settle: Callable[["Track"], Finish | None]
    done: dict[str, StageResult] = field(default_factory=dict)
    over: bool = False
    seen: int = 0

    def next_stage(self) -> Stage | None:
        """``None`` when the last stage was passed or one was not, and while it is ``over``."""
        for stage in () if self.over else self.stages:
            result = self.done.get(stage.id)
            if result is None:
                source = self.done.get(stage.resumes or "")
                return stage if source is None or source.outcome.state == "passed" else None
            if result.outcome.state != "passed":
                return None
        return None


@dataclass(frozen=True)
class Report:
    """One result that was written down. ``finish`` is set with the last one of a candidate, and with one at a rung."""

    track: Track
    result: StageResult
    finish: Finish | None


def finish_of(track: Track, objectives: Sequence[Objective]) -> Finish | None:
    """What the results of a track make of its candidate; ``None`` while there are stages to run."""
    fitness: dict[str, float] = {}
    for stage in track.stages:
        result = track.done.get(stage.id)
        if result is None:
            return None
        outcome = result.outcome
        if outcome.state != "passed":
            return Finish(outcome.state, stage.name, outcome.reason)
        fitness.update(outcome.fitness)
    for objective in objectives:
        if objective.name not in fitness:
            return Finish("failed", track.stages[-1].name, f"'{objective.name}' was not measured")
    return Finish("evaluated", fitness={o.name: fitness[o.name] for o in objectives})


def training_of(stage: str, stages: Sequence[Stage]) -> str:
    """Id of the stage that began the training which ``stage`` continues: both have the seed of that training."""
    resumes = {s.id: s.resumes for s in stages}
    while (earlier := resumes.get(stage)) is not None:
        stage = earlier
    return stage


class Dispatcher:
    """Keeps the executor busy with the tracks it was given, and commits every result before anyone hears of it.

    Args:
        stages: all stages of the run, of every phase.
        elapsed_s: time of the search so far, stored with each result.
        revised: gives what is written down of an outcome.
    """

    def __init__(
        self,
        executor: Executor,
        store: Store,
        checkpoints: Checkpoints,
        stages: Sequence[Stage],
        elapsed_s: Callable[[], float],
        revised: Callable[[Job, Outcome], Outcome] | None = None,
    ) -> None:
        self._executor = executor
        self._store = store
        self._checkpoints = checkpoints
        self._stages = {stage.id: stage for stage in stages}
        self._resumed = {stage.resumes for stage in stages}
        self._elapsed_s = elapsed_s
        self._revised = revised
        self._ready: list[tuple[int, int, Track]] = []
        self._running: dict[int, Track] = {}

    def add(self, track: Track) -> None:
        if track.next_stage() is not None:
            heapq.heappush(self._ready, (track.order, track.candidate, track))

    @property
    def free(self) -> int:
        """Jobs that could be run beyond those waiting and running."""
        return self._executor.capacity - len(self._ready) - len(self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        """Nothing runs, and nothing waits to be."""
        return not self._ready and not self._running

    def forget(self) -> None:
        """Drops what waits. What runs goes on; its results are recorded and lead to no further job."""
        self._ready.clear()
        for track in self._running.values():
            track.stages = ()

    def dispatch(self) -> None:
        """Submits waiting jobs while there is room."""
        while self._ready and len(self._running) < self._executor.capacity:
            _, _, track = heapq.heappop(self._ready)
            stage = track.next_stage()
            assert stage is not None, "a waiting track has a stage to run"
            self._running[track.candidate] = track
            self._executor.submit(self._job(track, stage))

    def _job(self, track: Track, stage: Stage) -> Job:
        """The job of ``stage``, or of the stage that it continues from if that one's checkpoint is gone."""
        checkpoint = None
        if stage.resumes is not None:
            name = track.done[stage.resumes].checkpoint
            if name is not None:
                checkpoint = self._checkpoints.get(name)
                if checkpoint is None:
                    return self._job(track, self._stages[stage.resumes])
        return Job(track.candidate, stage.id, track.genome, track.seed(stage.id), checkpoint=checkpoint)

    def collect(self, timeout_s: float | None = None) -> list[Report]:
        """Waits for results, writes them down, and lines up what comes next."""
        return [self._record(job, outcome) for job, outcome in self._executor.results(timeout_s)]

    def _record(self, job: Job, outcome: Outcome) -> Report:
        track = self._running.pop(job.candidate)
        outcome = finite(outcome)
        if self._revised is not None:
            outcome = self._revised(job, outcome)
        checkpoint = None
        if outcome.state == "passed" and outcome.checkpoint is not None and job.stage in self._resumed:
            checkpoint = self._checkpoints.put(outcome.checkpoint)
        result = StageResult(
            job.candidate, job.stage, replace(outcome, checkpoint=None), checkpoint, attempts=job.attempt + 1
        )
        track.done[job.stage] = result
        finish = track.settle(track)
        self._checkpoints.remove(self._store.told(result, finish, self._elapsed_s()))
        self.add(track)
        return Report(track, result, finish)


def finite(outcome: Outcome) -> Outcome:
    """A fitness that is not finite says nothing of the candidate; drivers never see one."""
    for name, value in outcome.fitness.items():
        if not math.isfinite(value):
            return Outcome(
                "failed",
                f"fitness '{name}' is {value}",
                metrics=outcome.metrics,
                duration_s=outcome.duration_s,
                cpu_s=outcome.cpu_s,
            )
    return outcome

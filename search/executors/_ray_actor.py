"""What a Ray actor does: builds its evaluator once, then runs jobs, in batches, one after the other."""

import gc
import os
import re
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import layersearch
from layersearch.errors import LayerSearchError, RunError
from layersearch.search.executors.base import ONE_THREAD, SpaceSpec, allowed_seconds, run_timed, settle_torch
from layersearch.spaces.contracts import Evaluator, Job, Outcome, SavingEvaluator

__all__ = ["SAVES", "Answer", "RayWorker", "Ready", "Saved", "Verdict", "hold_to_share"]

Verdict: TypeAlias = Literal["done", "again", "too big"]
"""What an answer asks for: nothing, another try, or another try with the machine's memory to itself."""
Answer: TypeAlias = tuple[Outcome, Verdict]

SAVES = "saves"
"""Concurrency group in which ``RayWorker.saved`` waits while a stage runs."""

_USABLE = 0.9
"""Of the memory of a GPU: the rest is for the contexts of the workers that share it."""
_TOO_BIG = re.compile(r"out of memory|OutOfMemory|MemoryError|can't allocate memory", re.IGNORECASE)


@dataclass(frozen=True)
class Ready:
    """A worker that has its evaluator.

    Args:
        limits: seconds per stage id.
        node: which machine it is on.
        saves: whether it is worth asking what it has ``saved``.
    """

    limits: dict[str, float]
    node: str
    version: str
    saves: bool = False


@dataclass(frozen=True)
class Saved:
    """Where a long stage stands. ``number`` counts what this worker has saved."""

    number: int
    candidate: int
    stage: str
    checkpoint: bytes

    def is_of(self, job: Job) -> bool:
        return (self.candidate, self.stage) == (job.candidate, job.stage)


class RayWorker:
    """One worker process. ``gpus`` is its share of one GPU, or how many it has whole; 0 hides them all.

    After an error or a stage over its time limit it runs nothing more: a fresh one takes its place.
    """

    def __init__(self, gpus: float) -> None:
        os.environ.update(ONE_THREAD)
        if gpus == 0:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves it unset, which shows every GPU
        self._gpus = gpus
        self._evaluator: Evaluator | None = None
        self._limits: dict[str, float] = {}
        self._spent = False
        self._job: Job | None = None
        self._latest: Saved | None = None
        self._saving = threading.Condition()

    def start(self, spec: SpaceSpec, data: dict[str, Any]) -> Ready | LayerSearchError:
        """Builds the evaluator. ``data`` is one copy per machine, read-only; an error is returned, not raised."""
        import ray

        try:
            self._take_memory(alone=False)
            settle_torch()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                self._evaluator = spec.build().evaluator(data, "cuda" if self._gpus else "cpu")
            settle_torch()
            self._limits = dict(self._evaluator.time_limits())
            saves = isinstance(self._evaluator, SavingEvaluator)
            if isinstance(self._evaluator, SavingEvaluator):
                self._evaluator.save = self._save
        except LayerSearchError as error:
            return error
        except Exception as error:
            return RunError(f"no worker could be started ({type(error).__name__}: {error})")
        return Ready(self._limits, ray.get_runtime_context().get_node_id(), layersearch.__version__, saves)

    def _save(self, checkpoint: bytes) -> None:
        assert self._job is not None, "only a stage that runs is saved"
        with self._saving:
            number = 1 + (self._latest.number if self._latest else 0)
            self._latest = Saved(number, self._job.candidate, self._job.stage, checkpoint)
            self._saving.notify_all()

    def saved(self, after: int) -> Saved:
        """Waits for one of a number larger than ``after``, and gives the latest. Called in the group ``SAVES``."""
        with self._saving:
            self._saving.wait_for(lambda: self._latest is not None and self._latest.number > after)
            assert self._latest is not None, "it was waited for"
            return self._latest

    def run(self, jobs: list[Job]) -> list[Answer]:
        """Answers ``jobs`` in order. Those after one that ended this worker are not begun and have no answer."""
        answers: list[Answer] = []
        for job in jobs:
            if self._spent:
                break
            answers.append(self._answer(job))
        return answers

    def run_alone(self, jobs: list[Job]) -> list[Answer]:
        """As ``run``, with all the memory of its GPU; the caller keeps the others on it idle."""
        self._take_memory(alone=True)
        try:
            return self.run(jobs)
        finally:
            self._take_memory(alone=False)

    def rest(self) -> None:
        """Gives back what it holds for speed only."""
        gc.collect()
        if self._gpus:
            import torch

            torch.cuda.empty_cache()

    def _answer(self, job: Job) -> Answer:
        assert self._evaluator is not None, "only a ready worker gets a job"
        self._job = job
        outcome, again = run_timed(self._evaluator, job, allowed_seconds(self._limits, job))
        too_big = outcome.state == "failed" and _TOO_BIG.search(outcome.reason) is not None
        self._spent = again or too_big
        return outcome, "too big" if too_big else "again" if again else "done"

    def _take_memory(self, alone: bool) -> None:
        hold_to_share(self._gpus, alone)
        if alone and "torch" in sys.modules and self._gpus:
            self.rest()


def hold_to_share(gpus: float, alone: bool = False) -> None:
    """Holds this process to its share of a GPU, if it has only a share: Ray counts them, the allocator of torch keeps
    them. ``alone`` lifts that to the whole."""
    if 0 < gpus < 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(_USABLE * (1.0 if alone else gpus))

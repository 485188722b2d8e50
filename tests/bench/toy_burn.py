"""A toy space whose stages burn a known amount of CPU and say how long their worker had nothing to do before."""

import time
from collections.abc import Mapping
from typing import Any

from toy_space import ToySpace

from layersearch.search.executors.base import SpaceSpec, trust
from layersearch.spaces.contracts import Arrays, Evaluator, Job, JsonObject, Outcome, Stage

__all__ = ["BurnSpace", "burn", "burn_spec", "from_settings"]

trust("toy_burn")


def burn(iterations: int) -> int:
    """Pure Python work; the same for the same number."""
    x = 1
    for _ in range(iterations):
        x = (x * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return x


def burn_spec(**settings: Any) -> SpaceSpec:
    return SpaceSpec("toy_burn:from_settings", settings, preload=())


def from_settings(settings: JsonObject) -> "BurnSpace":
    return BurnSpace(**settings)


class BurnSpace(ToySpace):
    """Two stages of ``iterations`` each; the second continues from a checkpoint of ``checkpoint_bytes``.

    With ``short`` it has the second alone.

    Nothing is rejected, and nothing follows the search.
    """

    name = "burn"

    def __init__(self, iterations: int, checkpoint_bytes: int, short: bool = False) -> None:
        super().__init__(size=1_000_000, objectives=1, reject_every=0)
        self.iterations = iterations
        self.checkpoint_bytes = checkpoint_bytes
        quality = Stage("quality", "quality")
        self.stages = (quality, Stage("fitness:o0", "fitness", resumes="quality"))
        if short:
            self.stages = (Stage("fitness:o0", "fitness"),)
        self.rerank_stages = self.test_stages = ()

    def baselines(self) -> Mapping[str, int]:
        return {}

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        return BurnEvaluator(self)


class BurnEvaluator:
    """``metrics`` of a result: time and CPU time of this process between the previous stage and this one."""

    def __init__(self, space: BurnSpace) -> None:
        self.space = space
        self.last: tuple[float, float] | None = None

    def time_limits(self) -> Mapping[str, float]:
        return {stage.id: 600.0 for stage in self.space.stages}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        begin = time.perf_counter(), time.process_time()
        metrics = {}
        if self.last is not None:
            metrics = {"gap_s": begin[0] - self.last[0], "gap_cpu_s": begin[1] - self.last[1]}
        burn(self.space.iterations)
        if job.stage == "quality":
            content = job.candidate.to_bytes(8, "big") * (self.space.checkpoint_bytes // 8)
            outcome = Outcome("passed", metrics=metrics, checkpoint=content)
        else:
            outcome = Outcome("passed", metrics=metrics, fitness={"o0": (job.seed % 1000) / 1000})
        self.last = time.perf_counter(), time.process_time()
        return outcome

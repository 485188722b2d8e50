"""A search space of plain whole numbers, to test the engine without torch: what a stage does is read off the number."""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layersearch.errors import DataError, GenomeError
from layersearch.search.executors.base import SpaceSpec, trust
from layersearch.spaces.contracts import (
    Arrays,
    Evaluator,
    Job,
    JsonObject,
    Objective,
    Outcome,
    Outline,
    Probe,
    Stage,
    Trial,
)
from layersearch.spaces.objectives import cost_objectives

trust("toy_space")

SEEDS = {"ten": 10, "eleven": 11, "twelve": 12}


def toy_spec(**settings: Any) -> SpaceSpec:
    return SpaceSpec("toy_space:from_settings", settings, preload=())


def from_settings(settings: JsonObject) -> "ToySpace":
    """Trains nothing, so it has no use for a lowering."""
    return ToySpace(**{name: value for name, value in settings.items() if not name.startswith("lowering")})


class ToySpace:
    """Genomes 0 … size - 1. A number and its alias (+ ``size``) are one function; every seventh is screened out.

    Args:
        log: file that the evaluator appends ``candidate stage`` to, whenever it runs a job.
        moments: file that it appends ``begin process`` and ``end process`` to, around each stage.
        tricks: what happens to a genome at the first trained stage: ``reject``, ``fail``, ``nan``, ``raise``, ``hang``,
            ``stuck``, ``die``, ``oom``, ``save`` (says where it stands, then dies unless it began there), ``saved``
            (the same, but dies a while later), or with ``-once`` only at the first attempt.
        sleep_s: time each stage takes; with ``uneven`` six times that for every third genome.
        ratio: with one, candidates are measured at two rungs before the end of their training.
        choices: whether one of the parameters of ``suggest`` is a choice.
        costs: objectives beside ``o0``, …: ``memory`` is a function of the genome, ``latency`` is never the same.
    """

    name = "toy"

    def __init__(
        self,
        size: int = 1000,
        log: str | None = None,
        tricks: Mapping[str, str] | None = None,
        sleep_s: float = 0.0,
        limit_s: float = 30.0,
        objectives: int = 2,
        reject_every: int = 5,
        broken: str | None = None,
        moments: str | None = None,
        ratio: int = 0,
        choices: bool = True,
        costs: Sequence[str] = (),
        uneven: bool = False,
    ) -> None:
        self.size = size
        self.moments = moments
        self.log = log
        self.tricks = {int(genome): trick for genome, trick in (tricks or {}).items()}
        self.sleep_s = sleep_s
        self.uneven = uneven
        self.limit_s = limit_s
        self.reject_every = reject_every
        self.broken = broken
        self.choices = choices
        self.costs = [name for name in costs if name != "value"]
        self.main = [f"o{i}" for i in range(objectives)]
        known = cost_objectives("nothing")
        self.objectives = (
            *(Objective(name, maximize=name != "o1") for name in self.main),
            *(known[name] for name in self.costs),
        )
        cost = [Stage("cost", "cost")] if self.costs else []
        self.stages = (Stage("quality", "quality", steps=10), *cost, *self._fitness_stages(2 if ratio else 0))
        self.rerank_stages = tuple(Stage(f"rerank:{k}", "rerank") for k in range(2))
        self.test_stages = tuple(Stage(f"test:{k}", "test", resumes=f"rerank:{k}") for k in range(2))

    def _fitness_stages(self, rungs: int) -> Iterator[Stage]:
        """``fitness:o0@0``, …, each continuing from the one before, and at last ``fitness:o0``."""
        for rung in range(rungs + 1):
            here, before = (f"@{rung}" if rung < rungs else "", f"@{rung - 1}")
            for name in self.main:
                resumes = f"fitness:{name}{before}" if rung else "quality"
                level = rung if rung < rungs else None
                yield Stage(f"fitness:{name}{here}", "fitness", resumes, level, steps=10 * 3**rung)

    def sample(self, rng: random.Random) -> int:
        return rng.randrange(2 * self.size)

    def mutate(self, genome: int, rng: random.Random) -> int:
        return (genome + rng.randint(-5, 5)) % (2 * self.size)

    def suggest(self, trial: Trial) -> int:
        """The last digit of an even ten has a parameter of its own, so that no two trials need have the same ones."""
        last = (2 * self.size - 1) // 10
        ten = trial.suggest_int("ten", 0, last)
        if ten == last:
            return 10 * ten + trial.suggest_int("rest", 0, (2 * self.size - 1) % 10)
        if ten % 2 and self.choices:
            return 10 * ten + int(trial.suggest_categorical("odd", "0123456789"))
        return 10 * ten + trial.suggest_int("even", 0, 9)

    def parameters(self, genome: int) -> dict[str, int | str] | None:
        ten, rest = divmod(genome, 10)
        if ten == (2 * self.size - 1) // 10:
            return {"ten": ten, "rest": rest}
        return {"ten": ten, "odd": str(rest)} if ten % 2 and self.choices else {"ten": ten, "even": rest}

    def seeds(self) -> Mapping[str, int]:
        return SEEDS

    def baselines(self) -> Mapping[str, int]:
        return {"eight": 8, "nine": 9}

    def outline(self, genome: int) -> Outline:
        return Outline(str(genome), "a multiple of seven" if genome % 7 == 0 else None)

    def probe(self, genome: int) -> Probe:
        return Probe(str(genome % self.size), str(genome % 10), "a multiple of eleven" if genome % 11 == 5 else None)

    def same(self, a: int, b: int) -> bool:
        return a % self.size == b % self.size

    def known_as(self, genome: int) -> str | None:
        return {number: name for name, number in SEEDS.items()}.get(genome % self.size)

    def to_json(self, genome: int) -> JsonObject:
        return {"n": genome}

    def from_json(self, data: JsonObject) -> int:
        n = data.get("n")
        if not isinstance(n, int):
            raise GenomeError(f"n must be a whole number, got {n!r}; change it")
        return n

    def formula(self, genome: int) -> str:
        return f"y = {genome}"

    def load_data(self) -> Arrays:
        if self.broken == "data":
            raise DataError("the toy data must be there, but it is not; make it")
        return {"x": np.arange(12, dtype=np.int64).reshape(3, 4), "empty": np.zeros((0, 2), np.uint8)}

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        if self.broken == "evaluator":
            raise ValueError("no such device")
        if self.broken == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        assert int(data["x"].sum()) == 66
        return ToyEvaluator(self)

    def describe(self) -> Sequence[tuple[str, str]]:
        return (("size", str(self.size)),)


class ToyEvaluator:
    def __init__(self, space: ToySpace) -> None:
        self.space = space
        self.save: Callable[[bytes], None] | None = None

    def time_limits(self) -> Mapping[str, float]:
        space = self.space
        return {s.id: space.limit_s for s in (*space.stages, *space.rerank_stages, *space.test_stages)}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        space, genome = self.space, space_genome(job)
        if space.log is not None:
            with Path(space.log).open("a") as file:
                file.write(f"{job.candidate} {job.stage}\n")
        self._note("begin")
        if space.sleep_s:
            time.sleep(space.sleep_s * (6 if space.uneven and genome % 3 == 0 else 1))
        self._note("end")
        if job.stage == "quality":
            return self._quality(job, genome)
        if job.stage == "cost":
            measured = {"memory": float(genome % 4), "latency": float(genome % 3) + time.perf_counter() % 1}
            return Outcome("passed", fitness={name: measured[name] for name in space.costs})
        noise = (job.seed % 1000) / 1e5
        if job.stage.startswith("fitness"):
            assert job.checkpoint == f"{genome} {job.seed}".encode(), "goes on from the quality stage, with its seed"
            name, _, rung = job.stage.partition(":")[2].partition("@")
            value = -abs(genome % space.size - 300) / 300 if name == "o0" else (genome % 13) / 13
            if rung:  # not quite in the order of the final values
                value += (genome * (int(rung) + 3) % 7 - 3) / (30 + 30 * int(rung))
                fitness = {name: value + noise}
                return Outcome("passed", metrics={f"early.{name}": value}, fitness=fitness, checkpoint=job.checkpoint)
            return Outcome("passed", metrics={f"loss.{name}": 1 - value}, fitness={name: value + noise})
        value = -abs(genome % space.size - 300) / 300 + noise
        if job.stage.startswith("rerank"):
            checkpoint = f"{job.stage} {genome} {job.seed}".encode()
            return Outcome("passed", metrics={"accuracy": 0.75}, fitness={"o0": value}, checkpoint=checkpoint)
        assert job.checkpoint == f"rerank:{job.stage[-1]} {genome} {job.seed}".encode()
        return Outcome("passed", fitness={"o0": value - 0.01})

    def _note(self, moment: str) -> None:
        if self.space.moments is not None:
            with Path(self.space.moments).open("a") as file:
                file.write(f"{moment} {os.getpid()}\n")

    def _quality(self, job: Job, genome: int) -> Outcome:
        space = self.space
        trick, _, once = space.tricks.get(genome, "").partition("-")
        if once and job.attempt > 0:
            trick = ""
        if trick == "raise":
            raise ValueError(f"cannot do {genome}\nand a second line")
        if trick == "oom":
            raise MemoryError(f"no room for {genome}")
        if trick == "hang":
            time.sleep(3600)
        if trick == "stuck":  # never lets another thread run
            re.match("(a+)+$", 64 * "a" + "b")
        if trick == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        half = f"half of {genome} {job.seed}".encode()
        if trick in ("save", "saved") and self.save is not None and job.checkpoint != half:
            assert job.checkpoint is None
            self.save(b"less")
            self.save(half)
            time.sleep(2.5 if trick == "saved" else 0.0)  # the driver asks for it over the network
            os.kill(os.getpid(), signal.SIGKILL)
        if trick == "fail":
            return Outcome("failed", "nothing can be said")
        if trick == "nan":
            return Outcome("passed", fitness={"o0": float("nan")})
        if trick == "reject" or (space.reject_every and genome % space.reject_every == 1):
            return Outcome("rejected", "too small", measured=float(genome % 5), limit=2.0)
        return Outcome("passed", metrics={"accuracy": 0.5}, checkpoint=f"{genome} {job.seed}".encode())


def space_genome(job: Job) -> int:
    return int(job.genome["n"])

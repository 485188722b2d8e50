"""What the engine and a search space say to each other: plain data and two protocols.

The engine (``layersearch.search``) knows no ops, data sets or networks. A space knows no workers, stores or drivers.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

__all__ = [
    "Arrays",
    "ControlledSpace",
    "Evaluator",
    "Genome",
    "Job",
    "JsonObject",
    "Objective",
    "Outcome",
    "Outline",
    "Probe",
    "PythonFile",
    "SavingEvaluator",
    "SelectingSpace",
    "Space",
    "Stage",
    "Trial",
    "TunableSpace",
]

JsonObject: TypeAlias = dict[str, Any]
Genome: TypeAlias = Any
"""Immutable and hashable; the engine only hands it back to its space and stores ``space.to_json(genome)``."""
Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""The data of a task as plain arrays, loaded once per run and shared by the workers of one machine."""


@dataclass(frozen=True)
class Objective:
    """One number of ``Outcome.fitness``. Drivers always maximise ``sign * value``.

    ``weight`` is its share in the mean by which candidates are put in order; 0 for one in other units than the rest,
    such as a number of parameters, which counts only where one candidate dominates another. One weight at least is
    not 0.

    Args:
        unit: of the value, as it is shown.
        noisy: measured anew it comes out different, as times do: a run that has one cannot be repeated to the bit.
    """

    name: str
    maximize: bool = True
    weight: float = 1.0
    unit: str = ""
    noisy: bool = False

    @property
    def sign(self) -> int:
        return 1 if self.maximize else -1


@dataclass(frozen=True)
class Stage:
    """One step of the funnel; stages run in order, cheap ones first.

    Args:
        id: unique within a run, e.g. ``quality:resnet``; what a job names.
        name: what rejections are counted under, e.g. ``quality``; shared by the stages of several networks.
        resumes: id of the earlier stage whose checkpoint this one continues from, if any.
        rung: of a stage that measures every candidate early: rungs are numbered from 0, and the stages of one rung
            together measure all objectives that have a weight. What the other stages measure is final.
        steps: training steps of this stage alone, for what a scheduler spares.
    """

    id: str
    name: str
    resumes: str | None = None
    rung: int | None = None
    steps: int = 0


@dataclass(frozen=True)
class Outline:
    """What is known of a genome without running it. ``reason`` is set when it cannot work."""

    key: str
    reason: str | None = None


@dataclass(frozen=True)
class Probe:
    """What one forward and backward pass on a tiny fixed input tells.

    ``key`` is the functional key (equal functions have equal keys; a match is confirmed by ``Space.same``), ``novelty``
    a coarser class (equal up to the per-channel affine that follows the layer). ``reason`` is set when it cannot work.
    """

    key: str
    novelty: str
    reason: str | None = None


@dataclass(frozen=True)
class Job:
    """One stage of one candidate: all that a worker needs beside the recipe. Plain data, cheap to send."""

    candidate: int
    stage: str
    genome: JsonObject
    seed: int
    attempt: int = 0
    checkpoint: bytes | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    ``rejected`` carries the rule in ``reason`` and the numbers in ``measured`` and ``limit``. ``failed`` means that
    nothing can be said of the candidate (an error, a lost worker, a time limit); ``reason`` says why.
    ``metrics`` are in natural sign; ``fitness`` holds declared objectives only and is finite; that of a later stage
    replaces that of an earlier one. ``selection`` is small plain data: what was selected inside the trial, where a
    genome says how that is learned. ``duration_s`` and ``cpu_s`` are never part of equality.
    """

    state: Literal["passed", "rejected", "failed"]
    reason: str = ""
    measured: float | None = None
    limit: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    fitness: Mapping[str, float] = field(default_factory=dict)
    checkpoint: bytes | None = None
    duration_s: float = field(default=0.0, compare=False)
    cpu_s: float = field(default=0.0, compare=False)
    selection: JsonObject | None = None


@dataclass(frozen=True)
class PythonFile:
    """A genome as a module that needs torch alone.

    Args:
        class_name: the class that it is for.
        title: first line of its docstring.
        formula: what it computes.
        body: everything after the docstring.
        check: takes the namespace that the module makes, compares it with the genome in float64, and gives the largest
            difference relative to 1 + size of the value; infinite if the two cannot be compared.
    """

    class_name: str
    title: str
    formula: str
    body: str
    check: Callable[[Mapping[str, Any]], float]


class Evaluator(Protocol):
    """Lives in a worker for the whole run; holds data, device and what was compiled."""

    def time_limits(self) -> Mapping[str, float]:
        """Seconds allowed per stage id: 10 × the time of the reference layer measured here, at least 30 s."""
        ...

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs one stage. Never raises for what a candidate does: that is a rejected or failed outcome."""
        ...


@runtime_checkable
class SavingEvaluator(Evaluator, Protocol):
    """An evaluator that hands out where it stands in a long stage.

    A job with such a checkpoint in place of its own has the same outcome: only the part that was done is not done
    again. An executor that gives it one job at a time may set ``save``, and use the latest one for a job whose worker
    was lost.
    """

    save: Callable[[bytes], None] | None


class Space(Protocol):
    """A search space bound to its task and settings. Cheap to build: no data is read, no torch module made."""

    name: str
    objectives: tuple[Objective, ...]
    stages: tuple[Stage, ...]
    """The trained stages of the search, in order. A candidate that passes the last one is *evaluated*."""
    rerank_stages: tuple[Stage, ...]
    """Stages run once, after the search, on the top candidates and on every baseline."""
    test_stages: tuple[Stage, ...]
    """Stages run once, after the re-rank, on the winner and every baseline: the only ones to read the test part."""

    def sample(self, rng: random.Random) -> Genome: ...

    def mutate(self, genome: Genome, rng: random.Random) -> Genome: ...

    def seeds(self) -> Mapping[str, Genome]:
        """Known layers the population may start from, by name, in the order of preference."""
        ...

    def baselines(self) -> Mapping[str, Genome]:
        """Known layers trained apart by the same code, by name; they are compared with, never searched from."""
        ...

    def outline(self, genome: Genome) -> Outline:
        """Static screen and structural key; microseconds."""
        ...

    def probe(self, genome: Genome) -> Probe:
        """Numeric screen and functional key; about a millisecond."""
        ...

    def same(self, a: Genome, b: Genome) -> bool:
        """Confirms that two genomes with equal ``Probe.key`` are one function, on an input not used for the key."""
        ...

    def known_as(self, genome: Genome) -> str | None:
        """Name of the published layer that this genome is, if it is one."""
        ...

    def to_json(self, genome: Genome) -> JsonObject: ...

    def from_json(self, data: JsonObject) -> Genome:
        """Raises GenomeError with one sentence for anything malformed, illegal or over the limits."""
        ...

    def formula(self, genome: Genome) -> str: ...

    def load_data(self) -> Arrays:
        """Reads the data set; raises DataError with one sentence if it is missing or broken."""
        ...

    def evaluator(self, data: Arrays, device: str) -> Evaluator: ...

    def describe(self) -> Sequence[tuple[str, str]]:
        """Label and value of each setting a user may want to see."""
        ...


@runtime_checkable
class SelectingSpace(Space, Protocol):
    """A space whose trials select something (``Outcome.selection``)."""

    def selected(self, selection: JsonObject) -> str:
        """A selection in one line."""
        ...


@runtime_checkable
class ControlledSpace(Space, Protocol):
    """A space whose winner is held against genomes that are made for it."""

    control_names: tuple[str, ...]
    """All that controls may be called."""

    def controls(self, genome: Genome, measured: Mapping[str, float]) -> Mapping[str, Genome]:
        """Controls by name, trained and shown as baselines are.

        Args:
            genome: the winner of the re-rank.
            measured: its metrics and what the re-rank measured of it, the mean over repeated trainings.
        """
        ...


class Trial(Protocol):
    """What a sampler of parameters is asked through; Optuna's trials are some.

    A name always stands for the same bounds or choices within a run; which names are asked for may depend on earlier
    answers. Bounds are inclusive; ``log`` means that ratios matter, not differences.
    """

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """``choices`` are texts, numbers or truth values."""
        ...


@runtime_checkable
class TunableSpace(Space, Protocol):
    """A space whose genomes can be written as parameters, for samplers that know nothing of genomes."""

    def suggest(self, trial: Trial) -> Genome:
        """The genome of a trial's answers: legal whatever they are."""
        ...

    def parameters(self, genome: Genome) -> Mapping[str, int | float | str | bool] | None:
        """Answers for which ``suggest`` gives a genome that does the same, ``genome`` itself if it was suggested.

        ``None`` if there are none.
        """
        ...

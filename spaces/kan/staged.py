"""Runs a funnel in a worker: quality, rungs, fitness, re-rank, test. What the evaluators of kan and skan share."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar

import torch
from torch import nn

from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Job, JsonObject, Outcome
from layersearch.spaces.ending import SAVE_EVERY_S, allowed_seconds, check_finished, settled, sooner
from layersearch.spaces.fidelity import Cut, Place, Steps, is_rung, place_of
from layersearch.spaces.tasks.course import TrainResult

__all__ = ["Part", "Score", "StagedEvaluator", "Trainings", "init_generator"]

Part: TypeAlias = Literal["validation", "holdout", "test"]

Searched = TypeVar("Searched")
Model = TypeVar("Model", bound=nn.Module)
Result = TypeVar("Result", bound=TrainResult)


class Trainings(Steps, Protocol):
    """How long those of the search and of the re-rank are."""

    @property
    def rerank_steps(self) -> int: ...


@dataclass(frozen=True)
class Score:
    """What a model is worth on a part: the ``objective`` of its evaluator, and metrics beside it."""

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)


class StagedEvaluator(abc.ABC, Generic[Searched, Model, Result]):
    """``layersearch.spaces.contracts.SavingEvaluator`` of models with one training each, cut where they are measured.

    At a rung a model is measured as it is: its objective on the validation part by weights that the rest of the
    training would still change.

    Args:
        steps: of the trainings.
        cuts: of the training of the search.
        rerank_seeds: trainings when the best candidates are ranked again.
    """

    space: ClassVar[str]
    objective: ClassVar[str]
    """What ``Score.value`` is called."""
    has_early_costs: ClassVar[bool] = True
    """Whether what a model costs at a rung is what it will cost."""

    def __init__(self, steps: Trainings, cuts: Sequence[Cut], rerank_seeds: int) -> None:
        self.steps = steps
        self.cuts = cuts
        self.rerank_seeds = rerank_seeds
        self.save: Callable[[bytes], None] | None = None
        self.save_every_s = SAVE_EVERY_S

    @abc.abstractmethod
    def parsed(self, genome: JsonObject) -> Searched:
        """Raises: GenomeError."""

    @abc.abstractmethod
    def trained(self, genome: Searched, *, seed: int, **how: Any) -> tuple[Model, Result]:
        """The model after a training; ``how`` as of the task's ``train``. Its start depends on ``seed`` alone."""

    @abc.abstractmethod
    def evaluated(self, model: Model, part: Part) -> Score:
        """Raises: EndedError for outputs that are not finite."""

    @abc.abstractmethod
    def objection(self, value: float) -> tuple[str, float] | None:
        """Why a candidate of this objective goes no further than quality, and the limit."""

    @abc.abstractmethod
    def of_training(self, model: Model, result: Result, is_over: bool) -> dict[str, float]:
        """Metrics of a rung, or of the end of a training that ``is_over``."""

    @abc.abstractmethod
    def costs(self, genome: Searched, model: Model) -> dict[str, float]:
        """Those that are objectives, of the trained model. Measuring them may move buffers of it."""

    @abc.abstractmethod
    def timed(self) -> tuple[Searched, ...]:
        """Designs, of which the slowest one's steps say how long a stage may take."""

    @abc.abstractmethod
    def seconds_per_step(self, genome: Searched) -> float:
        """Of a training, as measured."""

    def evaluation_seconds(self, per_step: float) -> float:
        """Of the validation part, where it takes long enough to count."""
        return 0.0

    def selection(self, genome: Searched, model: Model) -> JsonObject | None:
        """What was selected in the training."""
        return None

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what the slowest design of ``timed`` would take, at least 30 s."""
        steps = self.steps
        per_step = max(map(self.seconds_per_step, self.timed()))
        evaluation = self.evaluation_seconds(per_step)
        needed = {
            "quality": steps.quality_steps * per_step + evaluation,
            "fitness": (steps.fitness_steps - steps.quality_steps) * per_step + evaluation,
        }
        needed = dict.fromkeys((cut.stage for cut in self.cuts), max(needed.values())) | needed
        for k in range(self.rerank_seeds):
            rerank = steps.rerank_steps * per_step + 5 * evaluation
            needed |= {f"rerank:{k}": rerank, f"test:{k}": 10 * evaluation}
        return {stage: allowed_seconds(seconds) for stage, seconds in needed.items()}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs ``job.stage``, ``name[:repeat][@rung]``. An exception of the candidate is a failed outcome."""
        return settled(lambda deadline: self._run(job, deadline), time_limit_s)

    def _run(self, job: Job, deadline: float | None) -> Outcome:
        genome = self.parsed(job.genome)
        match place_of(job.stage):
            case Place("quality", rung=""):
                return self._quality(genome, job, deadline)
            case Place("fitness", rung=""):
                return self._fitness(genome, job, deadline)
            case Place("fitness", rung=step):
                return self._rung(genome, job, deadline, int(step))
            case Place("rerank", rung=""):
                return self._again(genome, job, deadline, "holdout", keep=True)
            case Place("test", rung=""):
                return self._again(genome, job, deadline, "test")
        raise ValueError(f"unknown stage '{job.stage}'; the {self.space} space has no such stage")

    def _quality(self, genome: Searched, job: Job, deadline: float | None) -> Outcome:
        """The first steps of the fitness training, which goes on from this checkpoint; a rung, if one is there."""
        steps = self.steps.quality_steps
        model, result, score = self._measured(genome, job, deadline, steps)
        if (objection := self.objection(score.value)) is not None:
            reason, limit = objection
            return Outcome("rejected", f"{reason} after {steps} steps", score.value, limit)
        metrics, checkpoint = {f"quality_{self.objective}": score.value}, result.checkpoint()
        fitness = self._early(genome, model, score) if is_rung(job.stage, self.cuts) else {}
        return Outcome("passed", metrics=metrics, fitness=fitness, checkpoint=checkpoint)

    def _rung(self, genome: Searched, job: Job, deadline: float | None, until_step: int) -> Outcome:
        model, result, score = self._measured(genome, job, deadline, until_step)
        found = {**score.metrics, **self.of_training(model, result, is_over=False)}
        metrics, checkpoint = {f"{name}@{until_step}": value for name, value in found.items()}, result.checkpoint()
        return Outcome("passed", metrics=metrics, fitness=self._early(genome, model, score), checkpoint=checkpoint)

    def _early(self, genome: Searched, model: Model, score: Score) -> dict[str, float]:
        """After the checkpoint was made: where costs are measured, running ranges and moments move."""
        return {self.objective: score.value} | (self.costs(genome, model) if self.has_early_costs else {})

    def _fitness(self, genome: Searched, job: Job, deadline: float | None) -> Outcome:
        model, result, score = self._measured(genome, job, deadline, self.steps.fitness_steps)
        metrics = {**score.metrics, **self.of_training(model, result, is_over=True)}
        fitness = {self.objective: score.value} | self.costs(genome, model)
        return Outcome("passed", metrics=metrics, fitness=fitness, selection=self.selection(genome, model))

    def _again(self, genome: Searched, job: Job, deadline: float | None, part: Part, keep: bool = False) -> Outcome:
        """A training of the re-rank, and what it is worth on a part; ``keep`` its end as a checkpoint."""
        steps = self.steps.rerank_steps
        model, result, score = self._measured(genome, job, deadline, steps, steps, part)
        return Outcome(
            "passed",
            metrics=score.metrics,
            fitness={self.objective: score.value},
            checkpoint=result.checkpoint() if keep else None,
            selection=self.selection(genome, model),
        )

    def _measured(
        self,
        genome: Searched,
        job: Job,
        deadline: float | None,
        until_step: int,
        total_steps: int | None = None,
        part: Part = "validation",
    ) -> tuple[Model, Result, Score]:
        """The model of a job, trained from its checkpoint and evaluated; by default in the training of the search.

        Raises: EndedError if the training did not reach its goal, or the model has no score.
        """
        model, result = self._trained(genome, job, deadline, until_step, total_steps or self.steps.fitness_steps)
        check_finished(result)
        return model, result, self.evaluated(model, part)

    def _trained(
        self, genome: Searched, job: Job, deadline: float | None, until_step: int, total_steps: int
    ) -> tuple[Model, Result]:
        """The training of a job, its state saved now and then."""
        goal = {"until_step": until_step, "total_steps": total_steps}
        checkpoint, pause_s, steps = job.checkpoint, self.save_every_s, 0
        while True:
            until = sooner(deadline, None if self.save is None else pause_s)
            model, result = self.trained(genome, **goal, seed=job.seed, checkpoint=checkpoint, deadline=until)
            if result.status != "timeout" or self.save is None or until == deadline:
                return model, result
            if result.steps == steps:  # it was over before a step
                pause_s = max(2 * pause_s, 1e-3)
            else:
                checkpoint, steps = result.checkpoint(), result.steps
                self.save(checkpoint)


def init_generator(seed: int) -> torch.Generator:
    """Of the initial weights of a candidate's model, which depend on ``seed`` alone."""
    return torch.Generator().manual_seed(Seeds(seed).derive("init"))

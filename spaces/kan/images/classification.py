"""Runs a funnel on an image task: quality, fitness, re-rank, test. What the evaluators of kan and skan share."""

import abc
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays, Job, JsonObject, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import EndedError, allowed_seconds, check_finished, settled
from layersearch.spaces.fidelity import Place, is_rung, place_of
from layersearch.spaces.kan.images.genome import ImageGenome
from layersearch.spaces.kan.images.network import build
from layersearch.spaces.kan.images.published import plain_like
from layersearch.spaces.kan.images.settings import ImageRunSettings
from layersearch.spaces.tasks.images.classifier import ClassifierTask, Part, TrainResult
from layersearch.spaces.tasks.images.models import ImageClassifier

__all__ = ["ClassificationEvaluator"]

_TIMED_STEPS = 3
_FAR = 1000 * _TIMED_STEPS
"""Horizon of the timed steps: what a training does late does not come in them."""

Searched = TypeVar("Searched", bound=ImageGenome[Any])


class ClassificationEvaluator(abc.ABC, Generic[Searched]):
    """``layersearch.spaces.contracts.Evaluator`` of classifiers of one image set: holds the data of one worker.

    At a rung the model is measured as it is, its accuracy by weights that the rest of the training would still change.

    Args:
        settings: of the run.
        data: arrays of the image set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    space: ClassVar[str]
    has_early_costs: ClassVar[bool] = True
    """Whether what a model costs at a rung is what it will cost."""

    def __init__(self, settings: ImageRunSettings, data: Arrays, device: str) -> None:
        self.funnel, self.recipe, self.cuts = settings.funnel, settings.task, settings.cuts
        self.task = ClassifierTask(data, settings.task, device)
        self.chance = 1 / self.task.classes

    @abc.abstractmethod
    def parsed(self, genome: JsonObject) -> Searched:
        """Raises: GenomeError."""

    @abc.abstractmethod
    def timed(self) -> tuple[Searched, ...]:
        """Designs, of which the slowest one's steps say how long a stage may take."""

    @abc.abstractmethod
    def trained(self, genome: Searched, *, seed: int, **how: Any) -> tuple[ImageClassifier, TrainResult]:
        """The model after a training; ``how`` as of ``ClassifierTask.train``. Its start depends on ``seed`` alone."""

    def selection(self, genome: Searched, model: ImageClassifier) -> JsonObject | None:
        """What was selected in the training."""
        return None

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what the slowest design of ``timed`` would take, at least 30 s."""
        task = self.recipe
        per_step = max(map(self._seconds_per_step, self.timed()))
        evaluation = task.validation_cap / task.batch * per_step
        needed = {
            "quality": task.quality_steps * per_step + evaluation,
            "fitness": (task.fitness_steps - task.quality_steps) * per_step + evaluation,
        }
        needed = dict.fromkeys((cut.stage for cut in self.cuts), max(needed.values())) | needed
        for k in range(self.funnel.rerank_seeds):
            rerank = task.rerank_steps * per_step + 5 * evaluation
            needed |= {f"rerank:{k}": rerank, f"test:{k}": 10 * evaluation}
        return {stage: allowed_seconds(seconds) for stage, seconds in needed.items()}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs ``job.stage``, ``name[:repeat][@rung]``. An exception of the candidate is a failed outcome."""
        return settled(lambda deadline: self._run(job, deadline), time_limit_s)

    def kan(self, genome: ImageGenome, seed: int) -> ImageClassifier:
        """A model of the kan space. The initial weights depend on ``seed`` alone."""
        generator = torch.Generator().manual_seed(Seeds(seed).derive("init"))
        return build(genome, self.task.in_channels, self.task.classes, generator=generator, device=self.task.device)

    def _run(self, job: Job, deadline: float | None) -> Outcome:
        genome, steps = self.parsed(job.genome), self.recipe.rerank_steps
        match place_of(job.stage):
            case Place("quality", rung=""):
                return self._quality(genome, job, deadline)
            case Place("fitness", rung=""):
                return self._fitness(genome, job, deadline)
            case Place("fitness", rung=step):
                return self._rung(genome, job, deadline, int(step))
            case Place(("rerank" | "test") as kind, rung=""):
                part: Part = "holdout" if kind == "rerank" else "test"
                model, result, accuracy = self._measured(genome, job, deadline, steps, steps, part)
                return Outcome(
                    "passed",
                    fitness={"accuracy": accuracy},
                    checkpoint=result.checkpoint() if kind == "rerank" else None,
                    selection=self.selection(genome, model),
                )
        raise ValueError(f"unknown stage '{job.stage}'; the {self.space} space has no such stage")

    def _quality(self, genome: Searched, job: Job, deadline: float | None) -> Outcome:
        """The first steps of the fitness training, which goes on from this checkpoint; a rung, if one is there."""
        task, limit = self.recipe, self.funnel.quality_chance * self.chance
        model, result, accuracy = self._measured(
            genome, job, deadline, task.quality_steps, task.fitness_steps, "validation"
        )
        if accuracy < limit:
            return Outcome("rejected", f"accuracy below the limit after {task.quality_steps} steps", accuracy, limit)
        checkpoint = result.checkpoint()
        fitness = self._early(genome, model, accuracy) if is_rung(job.stage, self.cuts) else {}
        return Outcome("passed", metrics={"quality_accuracy": accuracy}, fitness=fitness, checkpoint=checkpoint)

    def _rung(self, genome: Searched, job: Job, deadline: float | None, until_step: int) -> Outcome:
        steps = self.recipe.fitness_steps
        model, result, accuracy = self._measured(genome, job, deadline, until_step, steps, "validation")
        metrics, checkpoint = {f"train_accuracy@{until_step}": result.accuracy}, result.checkpoint()
        fitness = self._early(genome, model, accuracy)
        return Outcome("passed", metrics=metrics, fitness=fitness, checkpoint=checkpoint)

    def _early(self, genome: Searched, model: ImageClassifier, accuracy: float) -> dict[str, float]:
        """After the checkpoint was made: where costs are measured, running moments move."""
        return {"accuracy": accuracy} | (self._costs(genome, model) if self.has_early_costs else {})

    def _fitness(self, genome: Searched, job: Job, deadline: float | None) -> Outcome:
        steps = self.recipe.fitness_steps
        model, result, accuracy = self._measured(genome, job, deadline, steps, steps, "validation")
        return Outcome(
            "passed",
            metrics={"train_accuracy": result.accuracy},
            fitness={"accuracy": accuracy} | self._costs(genome, model),
            selection=self.selection(genome, model),
        )

    def _costs(self, genome: Searched, model: ImageClassifier) -> dict[str, float]:
        """Those that are objectives, of the trained model, against the ordinary one of the same shape, on a batch."""
        task, side = self.task, genome.shape.side
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.recipe.batch, task.in_channels, side, side, generator=generator).to(task.device)
        x = x.contiguous(memory_format=torch.channels_last)
        reference: nn.Module = self.kan(plain_like(genome), 0).train()
        count = sum(p.numel() for p in model.parameters())
        return measured_costs(self.funnel.objectives, model.train(), reference, x, count)

    def _measured(
        self, genome: Searched, job: Job, deadline: float | None, until_step: int, total_steps: int, part: Part
    ) -> tuple[ImageClassifier, TrainResult, float]:
        """The model of a job, trained from its checkpoint, and its accuracy on ``part``.

        Raises: EndedError if the training did not reach its goal, or a logit is not finite.
        """
        model, result = self.trained(
            genome,
            until_step=until_step,
            total_steps=total_steps,
            seed=job.seed,
            checkpoint=job.checkpoint,
            deadline=deadline,
        )
        check_finished(result)
        cap = self.recipe.validation_cap if part == "validation" else None
        accuracy = self.task.evaluate(model, part, cap).accuracy
        if accuracy is None:
            raise EndedError(Outcome("rejected", "logits are not finite"))
        return model, result, accuracy

    def _seconds_per_step(self, genome: Searched) -> float:
        ends: list[float] = []
        self.trained(
            genome,
            seed=0,
            until_step=_TIMED_STEPS + 1,
            total_steps=_FAR,
            on_step=lambda *_: ends.append(time.monotonic()),
            graphed=False,
        )
        return (ends[-1] - ends[0]) / _TIMED_STEPS  # the first step pays for warming up

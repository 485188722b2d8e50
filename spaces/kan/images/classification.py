"""Runs a funnel on an image task. What the evaluators of kan and skan share there."""

import time
from typing import Any, TypeVar

import torch

from layersearch.spaces.contracts import Arrays, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import EndedError
from layersearch.spaces.kan.images.genome import ImageGenome
from layersearch.spaces.kan.images.network import build
from layersearch.spaces.kan.images.published import plain_like
from layersearch.spaces.kan.images.settings import ImageRunSettings
from layersearch.spaces.kan.staged import Part, Score, StagedEvaluator, init_generator
from layersearch.spaces.tasks.images.classifier import ClassifierTask, TrainResult
from layersearch.spaces.tasks.images.models import ImageClassifier

__all__ = ["ClassificationEvaluator"]

_TIMED_STEPS = 3
_FAR = 1000 * _TIMED_STEPS
"""Horizon of the timed steps: what a training does late does not come in them."""

Searched = TypeVar("Searched", bound=ImageGenome[Any])


class ClassificationEvaluator(StagedEvaluator[Searched, ImageClassifier, TrainResult]):
    """``StagedEvaluator`` of classifiers of one image set: holds the data of one worker.

    Args:
        settings: of the run.
        data: arrays of the image set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    objective = "accuracy"

    def __init__(self, settings: ImageRunSettings, data: Arrays, device: str) -> None:
        super().__init__(settings.task, settings.cuts, settings.funnel.rerank_seeds)
        self.funnel, self.recipe = settings.funnel, settings.task
        self.task = ClassifierTask(data, settings.task, device)
        self.chance = 1 / self.task.classes

    def kan(self, genome: ImageGenome, seed: int) -> ImageClassifier:
        """A model of the kan space. The initial weights depend on ``seed`` alone."""
        task, generator = self.task, init_generator(seed)
        return build(genome, task.in_channels, task.classes, generator=generator, device=task.device)

    def evaluated(self, model: ImageClassifier, part: Part) -> Score:
        cap = self.recipe.validation_cap if part == "validation" else None
        accuracy = self.task.evaluate(model, part, cap).accuracy
        if accuracy is None:
            raise EndedError(Outcome("rejected", "logits are not finite"))
        return Score(accuracy)

    def objection(self, value: float) -> tuple[str, float] | None:
        limit = self.funnel.quality_chance * self.chance
        return ("accuracy below the limit", limit) if value < limit else None

    def of_training(self, model: ImageClassifier, result: TrainResult, is_over: bool) -> dict[str, float]:
        return {"train_accuracy": result.accuracy}

    def costs(self, genome: Searched, model: ImageClassifier) -> dict[str, float]:
        """Against the ordinary model of the same shape, on a batch."""
        task, side = self.task, genome.shape.side
        generator = torch.Generator().manual_seed(0)  # inputs that are the same in every run
        x = torch.randn(self.recipe.batch, task.in_channels, side, side, generator=generator).to(task.device)
        x = x.contiguous(memory_format=torch.channels_last)
        reference = self.kan(plain_like(genome), 0).train()
        count = sum(p.numel() for p in model.parameters())
        return measured_costs(self.funnel.objectives, model.train(), reference, x, count)

    def seconds_per_step(self, genome: Searched) -> float:
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

    def evaluation_seconds(self, per_step: float) -> float:
        return self.recipe.validation_cap / self.recipe.batch * per_step

"""Trains a classifier that selects, through all three stages."""

from dataclasses import dataclass
from typing import Any

import torch

from layersearch.spaces.skan.images.genome import SelectingGenome
from layersearch.spaces.skan.images.network import build, prune, pruned_network
from layersearch.spaces.skan.schedule import Schedule
from layersearch.spaces.skan.selection import Choices
from layersearch.spaces.skan.stages import train_through
from layersearch.spaces.tasks.images.checkpoint import write_checkpoint
from layersearch.spaces.tasks.images.classifier import ClassifierTask, TrainResult
from layersearch.spaces.tasks.images.models import ImageClassifier
from layersearch.spaces.tasks.images.step import make_optimizer

__all__ = ["train"]

_FITTED_IMAGES = 512
"""That channels are fitted on when they are pruned, more pixels than a fit takes; a head has one row of each image."""


def train(
    task: ClassifierTask, genome: SelectingGenome, *, until_step: int, total_steps: int, seed: int, **how: Any
) -> tuple[ImageClassifier, TrainResult]:
    """The model after ``until_step`` steps of a training of ``total_steps``, pruned if its turn has come.

    Arguments as of ``ClassifierTask.train``; the start and the noise of gates depend on ``seed`` alone.
    """
    schedule = Schedule(genome.layer, total_steps)
    return train_through(_Trial(task, genome), schedule, until_step=until_step, seed=seed, **how)


@dataclass(frozen=True)
class _Trial:
    """``stages.Trial`` of one training."""

    task: ClassifierTask
    genome: SelectingGenome

    def build(self, generator: torch.Generator) -> ImageClassifier:
        task = self.task
        return build(self.genome, task.in_channels, task.classes, generator=generator, device=task.device)

    def pruned_to(self, choices: Choices) -> ImageClassifier:
        task = self.task
        shape = (self.genome, task.in_channels, task.classes, choices)
        return pruned_network(*shape, generator=torch.Generator(), device=task.device)

    def prune(self, network: ImageClassifier) -> ImageClassifier:
        images, _ = self.task.fixed_batch(_FITTED_IMAGES)
        return prune(network, self.genome.layer.pruning, images, self.task.settings.batch)

    def begun(self, network: ImageClassifier, result: TrainResult) -> bytes:
        return write_checkpoint(network, make_optimizer(network, self.task.settings), result.progress)

    def train(self, network: ImageClassifier, **how: Any) -> TrainResult:
        return self.task.train(network, **how)

"""Trains a network that selects on a regression task, through all three stages."""

from dataclasses import dataclass
from typing import Any

import torch

from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.genome import SKANGenome
from layersearch.spaces.skan.network import build, prune, pruned_network
from layersearch.spaces.skan.schedule import Schedule
from layersearch.spaces.skan.selection import Choices
from layersearch.spaces.skan.stages import train_through
from layersearch.spaces.tasks.checkpoint import Progress
from layersearch.spaces.tasks.regression.checkpoint import write_checkpoint
from layersearch.spaces.tasks.regression.training import RegressionTask, TrainResult, optimizer_of

__all__ = ["train"]


def train(
    task: RegressionTask, genome: SKANGenome, *, until_step: int, total_steps: int, seed: int, **how: Any
) -> tuple[Network, TrainResult]:
    """The network after ``until_step`` steps of a training of ``total_steps``, pruned if its turn has come.

    Arguments as of ``RegressionTask.train``; the start and the noise of gates depend on ``seed`` alone.
    """
    schedule = Schedule(genome, total_steps)
    return train_through(_Trial(task, genome, total_steps, seed), schedule, until_step=until_step, seed=seed, **how)


@dataclass(frozen=True)
class _Trial:
    """``stages.Trial`` of one training."""

    task: RegressionTask
    genome: SKANGenome
    total_steps: int
    seed: int

    def build(self, generator: torch.Generator) -> Network:
        task = self.task
        shape = (self.genome, task.in_features, task.out_features)
        return build(*shape, generator=generator, device=task.device, dtype=task.dtype)

    def pruned_to(self, choices: Choices) -> Network:
        task = self.task
        shape = (self.genome, task.in_features, task.out_features)
        return pruned_network(*shape, choices, generator=torch.Generator(), device=task.device, dtype=task.dtype)

    def prune(self, network: Network) -> Network:
        return prune(network, self.genome.pruning, self.task.points("train")[0])

    def begun(self, network: Network, result: TrainResult) -> bytes:
        settings = self.task.settings
        progress = Progress(result.steps, self.total_steps, self.seed, settings.fingerprint())
        return write_checkpoint(network, optimizer_of(network, settings), progress)

    def train(self, network: Network, **how: Any) -> TrainResult:
        return self.task.train(network, **how)

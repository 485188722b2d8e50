"""One training through all three stages: gates follow the step, and at its turn the network is pruned and goes on.

Cut at any step and continued from its checkpoint, on either side of the pruning, it is the same training bit for bit: a
checkpoint of a pruned network says by its ``choice`` tensors what was chosen.
"""

from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from layersearch.primitives.seeds import Seeds
from layersearch.spaces.ending import Ended
from layersearch.spaces.kan.staged import init_generator
from layersearch.spaces.skan.network import set_stage
from layersearch.spaces.skan.schedule import Schedule
from layersearch.spaces.skan.selection import Choices, chosen_in

__all__ = ["Trial", "train_through"]

Net = TypeVar("Net", bound=nn.Sequential)
Result = TypeVar("Result", bound=Ended)


class Trial(Protocol[Net, Result]):
    """A network of a genome and the task that trains it."""

    def build(self, generator: torch.Generator) -> Net:
        """The network before it is pruned."""
        ...

    def pruned_to(self, choices: Choices) -> Net:
        """The network after that, with any weights."""
        ...

    def prune(self, network: Net) -> Net:
        """From the one to the other, weights included."""
        ...

    def begun(self, network: Net, result: Result) -> bytes:
        """Checkpoint of a pruned network at the step of ``result``, with a fresh optimiser.

        Moments of before are of gated weights. Kept, they made no difference (fn:r1, r3, two seeds).
        """
        ...

    def train(self, network: Net, **how: Any) -> Result:
        """With what ``train`` of the task takes: ``until_step``, ``total_steps``, ``seed``, ``checkpoint``, …"""
        ...


def train_through(
    trial: Trial[Net, Result],
    schedule: Schedule,
    *,
    until_step: int,
    seed: int,
    checkpoint: bytes | None = None,
    **how: Any,
) -> tuple[Net, Result]:
    """The network after ``until_step`` steps of the training of a schedule, pruned if its turn has come.

    The start and the noise of gates depend on ``seed`` alone; ``how`` is for ``trial.train``.
    """
    how |= {"total_steps": schedule.total_steps, "seed": seed}
    chosen = None if checkpoint is None else chosen_in(checkpoint)
    if chosen is None:
        network = trial.build(init_generator(seed))

        def before_step(step: int) -> None:
            generator = torch.Generator().manual_seed(Seeds(seed).derive("gates", step))
            set_stage(network, schedule.temperature(step), generator)

        until = min(until_step, schedule.prune_at)
        result = trial.train(network, until_step=until, checkpoint=checkpoint, before_step=before_step, **how)
        if result.status != "ok" or result.steps < schedule.prune_at:
            return network, result
        pruned = trial.prune(network)
        checkpoint = trial.begun(pruned, result)
    else:
        pruned = trial.pruned_to(chosen)
    return pruned, trial.train(pruned, until_step=until_step, checkpoint=checkpoint, **how)

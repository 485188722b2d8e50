"""One training through all three stages: gates follow the step, and at its turn the network is pruned and goes on.

Cut at any step and continued from its checkpoint, on either side of the pruning, it is the same training bit for bit: a
checkpoint of a pruned network says by its ``choice`` tensors what was chosen.
"""

from typing import Any

import torch

from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.genome import SKANGenome
from layersearch.spaces.skan.network import Choices, build, prune, pruned_network, set_stage
from layersearch.spaces.skan.schedule import Schedule
from layersearch.spaces.tasks.checkpoint import Progress, unpack
from layersearch.spaces.tasks.regression.checkpoint import MODEL, write_checkpoint
from layersearch.spaces.tasks.regression.training import RegressionTask, TrainResult, optimizer_of

__all__ = ["chosen_in", "chosen_of", "train"]

_CHOICE = ".choice"


def train(
    task: RegressionTask,
    genome: SKANGenome,
    *,
    until_step: int,
    total_steps: int,
    seed: int,
    checkpoint: bytes | None = None,
    deadline: float | None = None,
) -> tuple[Network, TrainResult]:
    """The network after ``until_step`` steps of a training of ``total_steps``, pruned if its turn has come.

    Arguments as of ``RegressionTask.train``; the start and the noise of gates depend on ``seed`` alone.
    """
    schedule = Schedule(genome, total_steps)
    shape = (genome, task.in_features, task.out_features)
    like: dict[str, Any] = {"device": task.device, "dtype": task.dtype}
    chosen = None if checkpoint is None else chosen_in(checkpoint)
    common: dict[str, Any] = {"total_steps": total_steps, "seed": seed, "deadline": deadline}
    if chosen is None:
        network = build(*shape, generator=torch.Generator().manual_seed(Seeds(seed).derive("init")), **like)

        def before_step(step: int) -> None:
            generator = torch.Generator().manual_seed(Seeds(seed).derive("gates", step))
            set_stage(network, schedule.temperature(step), generator)

        until = min(until_step, schedule.prune_at)
        result = task.train(network, until_step=until, checkpoint=checkpoint, before_step=before_step, **common)
        if result.status != "ok" or result.steps < schedule.prune_at:
            return network, result
        network = prune(network, genome.pruning, task.points("train")[0])
        # Adam begins anew: its moments are of gated weights. Kept, they made no difference (fn:r1, r3, two seeds).
        progress = Progress(result.steps, total_steps, seed, task.settings.fingerprint())
        checkpoint = write_checkpoint(network, optimizer_of(network, task.settings), progress)
    else:
        network = pruned_network(*shape, chosen, generator=torch.Generator(), **like)
    return network, task.train(network, until_step=until_step, checkpoint=checkpoint, **common)


def chosen_in(checkpoint: bytes) -> Choices | None:
    """What was chosen, of the checkpoint of a pruned network; None if it is not pruned yet. Raises: StoreError."""
    tensors, _ = unpack(checkpoint)
    found = {name: t for name, t in tensors.items() if name.startswith(MODEL) and name.endswith(_CHOICE)}
    layers = [f"{MODEL}{i}{_CHOICE}" for i in range(len(found))]
    return tuple(tuple(found[name].tolist()) for name in layers) if found and set(layers) == set(found) else None


def chosen_of(network: Network) -> Choices | None:
    """The same of a network."""
    layers = [layer for layer in network if isinstance(layer, MixedKANLinear)]
    return tuple(tuple(layer.choice.tolist()) for layer in layers) or None

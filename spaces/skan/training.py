"""One training through all three stages: gates follow the step, and at its turn the network is pruned and goes on.

Cut at any step and continued from its checkpoint, on either side of the pruning, it is the same training bit for bit: a
checkpoint of a pruned network says by its ``choice`` tensors what was chosen.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from layersearch.primitives.layers.selective import SelectiveKANLinear
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.genome import SKANGenome
from layersearch.spaces.skan.network import Choices, build, prune, pruned_network
from layersearch.spaces.skan.schedule import Schedule
from layersearch.spaces.tasks.checkpoint import unpack
from layersearch.spaces.tasks.regression.checkpoint import MODEL, read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.tasks.regression.training import RegressionTask, TrainResult, optimizer_of

__all__ = ["chosen_in", "chosen_of", "train"]

_CHOICE = ".choice"
_MOMENTS = ("exp_avg", "exp_avg_sq")


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
            set_stage(network, schedule.temperature(step), seed, step)

        until = min(until_step, schedule.prune_at)
        result = task.train(network, until_step=until, checkpoint=checkpoint, before_step=before_step, **common)
        if result.status != "ok" or result.steps < schedule.prune_at:
            return network, result
        network, checkpoint = _pruned(network, result.checkpoint(), task.settings)
    else:
        network = pruned_network(*shape, chosen, generator=torch.Generator(), **like)
    return network, task.train(network, until_step=until_step, checkpoint=checkpoint, **common)


def set_stage(network: Network, temperature: float | None, seed: int, step: int) -> None:
    """Puts all gates of a network where they are at ``step``."""
    generator = torch.Generator().manual_seed(Seeds(seed).derive("gates", step))
    for layer in network:
        cast(SelectiveKANLinear, layer).set_stage(temperature, generator)


def chosen_in(checkpoint: bytes) -> Choices | None:
    """What was chosen, of the checkpoint of a pruned network; None if it is not pruned yet. Raises: StoreError."""
    tensors, _ = unpack(checkpoint)
    found = {name: t for name, t in tensors.items() if name.startswith(MODEL) and name.endswith(_CHOICE)}
    layers = [f"{MODEL}{i}{_CHOICE}" for i in range(len(found))]
    return tuple(tuple(found[name].tolist()) for name in layers) if found and set(layers) == set(found) else None


def chosen_of(network: Network) -> Choices | None:
    """The same of a network."""
    found = [tuple(layer.choice.tolist()) for layer in network if isinstance(getattr(layer, "choice", None), Tensor)]
    return tuple(found) or None


def _pruned(network: Network, checkpoint: bytes, settings: RegressionSettings) -> tuple[Network, bytes]:
    """The pruned network and the checkpoint it goes on from: moments of Adam stay with their weights.

    LBFGS begins anew: its history is of vectors of all weights.
    """
    optimizer = optimizer_of(network, settings)
    progress = read_checkpoint(checkpoint, network, optimizer)
    mixed = prune(network)
    fresh = optimizer_of(mixed, settings)
    if settings.optimizer != "lbfgs":
        place = {name: i for i, (name, _) in enumerate(mixed.named_parameters())}
        state: dict[int, dict[str, Tensor]] = {}
        for i, layer in enumerate(network):
            for name, moments in _kept_moments(cast(SelectiveKANLinear, layer), mixed[i].choice, optimizer).items():  # type: ignore[arg-type]
                state[place[f"{i}.{name}"]] = moments
        fresh.load_state_dict({"state": state, "param_groups": fresh.state_dict()["param_groups"]})
    return mixed, write_checkpoint(mixed, fresh, progress)


def _kept_moments(
    layer: SelectiveKANLinear, choice: Tensor, optimizer: torch.optim.Optimizer
) -> Mapping[str, dict[str, Tensor]]:
    held = {name: optimizer.state[p] for name, p in layer.named_parameters() if optimizer.state.get(p)}
    found: dict[str, dict[str, Tensor]] = {}
    for kind in _MOMENTS:
        for name, tensor in layer.slices({n: state[kind] for n, state in held.items()}, choice.tolist()).items():
            # Every weight is in every step, so that all have made as many.
            found.setdefault(name, {"step": held["weight"]["step"]})[kind] = tensor
    return found

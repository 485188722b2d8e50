"""A training between two stages as bytes: safetensors, so that nothing in it can run, with its position as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from layersearch.spaces.tasks.checkpoint import MODEL, check_fit, pack, position_of, put, state_of, unpack, unreadable
from layersearch.spaces.tasks.checkpoint import Progress as TaskProgress
from layersearch.spaces.tasks.images import step as optimizers

__all__ = ["Progress", "read_checkpoint", "step_of", "write_checkpoint"]

_KEPT = {
    optimizers.MOMENTUM: "momentum/",
    optimizers.FIRST: "first_moment/",
    optimizers.SECOND: "second_moment/",
    optimizers.COUNT: "count/",
}


@dataclass(frozen=True)
class Progress(TaskProgress):
    """With ``recent``, the training accuracies of the last batches, for the running mean."""

    recent: tuple[float, ...]


def write_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> bytes:
    """State dict, momentum and position, bit for bit."""
    tensors = {MODEL + name: tensor for name, tensor in state_of(model).items()}
    for kept, prefix in _KEPT.items():
        for name, parameter in model.named_parameters():
            momentum = optimizer.state[parameter].get(kept) if parameter in optimizer.state else None
            if momentum is not None:
                tensors[prefix + name] = momentum
    return pack(tensors, asdict(progress))


def read_checkpoint(data: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a checkpoint into a model and its optimiser; both keep their memory layout.

    Raises: StoreError if ``data`` is no checkpoint, or not one of this model.
    """
    tensors, _ = unpack(data)
    progress = _progress_of(data)
    state = state_of(model)
    saved = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    check_fit(saved, state, complete=True)
    parameters = dict(model.named_parameters())
    like = {kept: _like(kept, parameters) for kept in _KEPT}
    momentum = {
        kept: {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for kept, prefix in _KEPT.items()
    }
    for kept, found in momentum.items():
        check_fit(found, like[kept], complete=False)
    put(saved, state)
    with torch.no_grad():
        for kept, found in momentum.items():
            for name, tensor in found.items():
                optimizer.state[parameters[name]][kept] = torch.empty_like(like[kept][name]).copy_(tensor)
    return progress


def _like(kept: str, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """What an optimiser keeps for each parameter: a tensor in its form, or a count of steps."""
    if kept != optimizers.COUNT:
        return {name: parameter.detach() for name, parameter in parameters.items()}
    return {name: p.new_zeros((), dtype=torch.float32) for name, p in parameters.items()}


def step_of(data: bytes) -> int:
    """Number of steps done at a checkpoint. Raises: StoreError if ``data`` is none."""
    return _progress_of(data).step


def _progress_of(data: bytes) -> Progress:
    """Where a checkpoint stands. Raises: StoreError if ``data`` is none."""
    try:
        values = position_of(data)
        return Progress(**{**values, "recent": tuple(values["recent"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(error) from None

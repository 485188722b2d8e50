"""A training between two stages as bytes: safetensors, so that nothing in it can run, with its position as JSON."""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from layersearch.spaces.tasks.checkpoint import Progress as TaskProgress
from layersearch.spaces.tasks.checkpoint import check_fit, pack, position_of, put, unpack, unreadable

__all__ = ["Progress", "read_checkpoint", "step_of", "write_checkpoint"]

MODEL, MOMENTUM = "model/", "momentum/"


@dataclass(frozen=True)
class Progress(TaskProgress):
    """With ``recent``, the training accuracies of the last batches, for the running mean."""

    recent: tuple[float, ...]


def write_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> bytes:
    """State dict, momentum and position, bit for bit."""
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if momentum is not None:
            tensors[MOMENTUM + name] = momentum
    return pack(tensors, asdict(progress))


def read_checkpoint(data: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a checkpoint into a model and its optimiser; both keep their memory layout.

    Raises: StoreError if ``data`` is no checkpoint, or not one of this model.
    """
    tensors, _ = unpack(data)
    try:
        progress = _progress(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(error) from None
    state = model.state_dict()
    saved = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    check_fit(saved, state, complete=True)
    parameters = dict(model.named_parameters())
    momentum = {name.removeprefix(MOMENTUM): tensor for name, tensor in tensors.items() if name.startswith(MOMENTUM)}
    check_fit(momentum, parameters, complete=False)
    put(saved, state)
    with torch.no_grad():
        for name, tensor in momentum.items():
            optimizer.state[parameters[name]]["momentum_buffer"] = torch.empty_like(parameters[name]).copy_(tensor)
    return progress


def step_of(data: bytes) -> int:
    """Number of steps done at a checkpoint. Raises: StoreError if ``data`` is none."""
    try:
        return _progress(data).step
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(error) from None


def _progress(data: bytes) -> Progress:
    values = position_of(data)
    return Progress(**{**values, "recent": tuple(values["recent"])})

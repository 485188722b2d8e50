"""A training between two stages as bytes: model, the state of any optimiser, and the position."""

from dataclasses import asdict
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from layersearch.spaces.tasks.checkpoint import MODEL, Progress, check_fit, pack, put, state_of, unpack, unreadable

__all__ = ["read_checkpoint", "write_checkpoint"]

STATE = "optimizer/"

Skeleton: TypeAlias = Any
"""JSON in which ``{"tensor": name}`` stands for a tensor."""


def write_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> bytes:
    """State dict, optimiser and position, bit for bit."""
    tensors = {MODEL + name: tensor for name, tensor in state_of(model).items()}
    state = optimizer.state_dict()["state"]
    skeleton = {str(key): _taken_apart(value, f"{STATE}{key}", tensors) for key, value in state.items()}
    return pack(tensors, {**asdict(progress), "optimizer": skeleton})


def read_checkpoint(data: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a checkpoint into a model and its optimiser.

    Raises: StoreError if ``data`` is no checkpoint, or not one of this model.
    """
    tensors, position = unpack(data)
    try:
        skeleton = position.pop("optimizer")
        progress = Progress(**position)
        state = {int(key): _put_together(value, tensors) for key, value in skeleton.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(error) from None
    saved = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    expected = state_of(model)
    check_fit(saved, expected, complete=True)
    put(saved, expected)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def _taken_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Skeleton:
    match value:
        case Tensor():
            tensors[name] = value
            return {"tensor": name}
        case dict():
            return {"items": {key: _taken_apart(part, f"{name}/{key}", tensors) for key, part in value.items()}}
        case list():
            return [_taken_apart(part, f"{name}/{i}", tensors) for i, part in enumerate(value)]
        case None | bool() | int() | float():
            return value
    raise TypeError(f"an optimiser must hold tensors and numbers, got {type(value).__name__} as {name}")


def _put_together(value: Skeleton, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _put_together(part, tensors) for key, part in value["items"].items()}
    return [_put_together(part, tensors) for part in value] if isinstance(value, list) else value

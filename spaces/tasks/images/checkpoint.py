"""A training between two stages as bytes: safetensors, so that nothing in it can run, with its position as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from layersearch.errors import StoreError

__all__ = ["Progress", "read_checkpoint", "step_of", "write_checkpoint"]

MODEL, MOMENTUM = "model/", "momentum/"


@dataclass(frozen=True)
class Progress:
    """Where a training stands. The data position is a function of ``seed`` and ``step``, so no generator is kept.

    Args:
        step: number of steps done.
        total_steps: horizon of the learning rate.
        seed: of the order of the data.
        settings: fingerprint of the settings trained under.
        recent: training accuracies of the last batches, for the running mean.
    """

    step: int
    total_steps: int
    seed: int
    settings: str
    recent: tuple[float, ...]


def write_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> bytes:
    """State dict, momentum and position, bit for bit."""
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        if momentum is not None:
            tensors[MOMENTUM + name] = momentum
    # Cloned: safetensors refuses tensors that share memory or are not laid out in order.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain, metadata={"progress": json.dumps(asdict(progress))})


def read_checkpoint(data: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a checkpoint into a model and its optimiser; both keep their memory layout.

    Raises: StoreError if ``data`` is no checkpoint, or not one of this model.
    """
    try:
        tensors, progress = load(data), _progress(data)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"a checkpoint must be whole, this one cannot be read ({error}); train from the start"
        ) from None
    state = model.state_dict()
    saved = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    _check_fit(saved, state, complete=True)
    parameters = dict(model.named_parameters())
    momentum = {name.removeprefix(MOMENTUM): tensor for name, tensor in tensors.items() if name.startswith(MOMENTUM)}
    _check_fit(momentum, parameters, complete=False)
    with torch.no_grad():
        for name, tensor in saved.items():
            state[name].copy_(tensor)
        for name, tensor in momentum.items():
            optimizer.state[parameters[name]]["momentum_buffer"] = torch.empty_like(parameters[name]).copy_(tensor)
    return progress


def step_of(data: bytes) -> int:
    """Number of steps done at a checkpoint. Raises: StoreError if ``data`` is none."""
    try:
        return _progress(data).step
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"a checkpoint must be whole, this one cannot be read ({error}); train from the start"
        ) from None


def _check_fit(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], complete: bool) -> None:
    strange = sorted(set(saved) - set(expected)) + (sorted(set(expected) - set(saved)) if complete else [])
    if strange:
        raise StoreError(
            f"a checkpoint must be of the model it continues, only one has '{strange[0]}'; train from the start"
        )
    for name, tensor in saved.items():
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            raise StoreError(
                f"a checkpoint must be of the model it continues, '{name}' must be {list(expected[name].shape)} "
                f"{expected[name].dtype}, got {list(tensor.shape)} {tensor.dtype}; train from the start"
            )


def _progress(data: bytes) -> Progress:
    """The position from the header of safetensors: eight bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    values = json.loads(header["__metadata__"]["progress"])
    return Progress(**{**values, "recent": tuple(values["recent"])})

"""Tensors and a position as bytes: safetensors, so that nothing in a checkpoint can run, with the position as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from layersearch.errors import StoreError
from layersearch.spaces.contracts import JsonObject

__all__ = [
    "MODEL",
    "Progress",
    "check_fit",
    "check_same_training",
    "pack",
    "position_of",
    "put",
    "state_of",
    "unpack",
    "unreadable",
]

MODEL = "model/"
"""Before the names of a state dict, in every checkpoint of a network."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands. The data position is a function of ``seed`` and ``step``, so no generator is kept.

    Args:
        step: number of steps done.
        total_steps: horizon of the learning rate.
        seed: of the order of the data.
        settings: fingerprint of the settings trained under.
    """

    step: int
    total_steps: int
    seed: int
    settings: str


def check_same_training(progress: Progress, total_steps: int, seed: int, settings: str) -> None:
    """Raises: StoreError unless a training of this horizon, seed and fingerprint can go on from ``progress``."""
    for name, saved, given in (
        ("total_steps", progress.total_steps, total_steps),
        ("seed", progress.seed, seed),
        ("settings", progress.settings, settings),
    ):
        if saved != given:
            raise StoreError(f"a checkpoint must be continued with its own {name} {saved}, got {given}; use that one")


def pack(tensors: Mapping[str, Tensor], position: JsonObject) -> bytes:
    """Bit for bit; inverse of ``unpack``."""
    # Cloned: safetensors refuses tensors that share memory or are not laid out in order.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain, metadata={"progress": json.dumps(position)})


def unpack(data: bytes) -> tuple[dict[str, Tensor], JsonObject]:
    """Tensors and position. Raises: StoreError if ``data`` is no checkpoint."""
    try:
        return load(data), position_of(data)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(error) from None


def position_of(data: bytes) -> JsonObject:
    """The position alone, from the header of safetensors: eight bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    position: JsonObject = json.loads(header["__metadata__"]["progress"])
    return position


def unreadable(error: Exception) -> StoreError:
    """What is said of a checkpoint that ``error`` shows to be none."""
    return StoreError(f"a checkpoint must be whole, this one cannot be read ({error}); train from the start")


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of ``model``: its state dict but for extra state, which trainings set at each step."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("_extra_state")}


def check_fit(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], complete: bool) -> None:
    """Raises: StoreError unless names (all of them if ``complete``), shapes and dtypes are those expected."""
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


def put(saved: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copies every saved tensor into the one of that name, which keeps its memory layout."""
    with torch.no_grad():
        for name, tensor in saved.items():
            state[name].copy_(tensor)

"""Activation functions by name: base branches of KAN layers, and what rationals are fitted to."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from layersearch.primitives.registry import unknown_name

__all__ = ["ACTIVATIONS", "Activation", "activation"]

Activation: TypeAlias = Callable[[Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Activation] = {
    "elu": F.elu,
    "gelu": F.gelu,
    "identity": _identity,
    "leaky_relu": F.leaky_relu,
    "mish": F.mish,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
}
"""Elementwise functions with torch's default parameters."""

ALIASES = {"swish": "silu", "linear": "identity"}


def activation(name: str) -> tuple[str, Activation]:
    """The name as this package has it (``swish`` is ``silu``) and the function. Raises UnknownNameError."""
    own = ALIASES.get(name, name)
    if own not in ACTIVATIONS:
        raise unknown_name("activation", name, sorted(ACTIVATIONS))
    return own, ACTIVATIONS[own]

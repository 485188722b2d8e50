"""What tests run in spawned processes, which find the helpers' folder on their path, but not that of the tests."""

import torch
from torch import nn

__all__ = ["kind_and_output"]


def kind_and_output(layer: nn.Module, x: torch.Tensor) -> tuple[str, list[float]]:
    """Class of the layer as it arrived, and what it gives for ``x``."""
    return type(layer).__name__, layer(x).tolist()

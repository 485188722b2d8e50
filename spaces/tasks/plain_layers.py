"""torch's linear and convolution layers with its own default start, drawn from a generator of one's own."""

import math

import torch
from torch import nn

__all__ = ["seeded_conv2d", "seeded_linear"]


def seeded_linear(
    inputs: int, outputs: int, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
) -> nn.Linear:
    """With torch's default start, U(-1/√I, 1/√I) for weights and biases, but from ``generator``."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype)  # type: ignore[no-untyped-call]
    _draw(layer, inputs, generator)
    return layer


def seeded_conv2d(
    n_in: int,
    n_out: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    *,
    bias: bool = True,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Conv2d:
    """With torch's default start, U(-1/√I, 1/√I) with the I numbers that an output sees, but from ``generator``."""
    layer: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, n_in, n_out, kernel, stride, padding, bias=bias, dtype=dtype
    )
    _draw(layer, n_in * kernel * kernel, generator)
    return layer


def _draw(layer: nn.Module, fan_in: int, generator: torch.Generator | None) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)

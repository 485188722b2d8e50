"""What the anchor networks share: sizes, strides, init, and what stands at sites where nothing is searched."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

__all__ = [
    "MIN_DEPTH",
    "MIN_SIDE",
    "BuildNetwork",
    "ChannelAffine",
    "Layer",
    "conv",
    "initialise",
    "scaled_channels",
    "scaled_repeats",
    "strides",
]

Layer: TypeAlias = Callable[[int], nn.Module]
"""``layer(num_features)`` makes the module at a site of normalisation and activation."""

MIN_DEPTH = 0.125  # down to here at least one block of every anchor network remains
MIN_SIDE = 4  # feature maps never get smaller: below 4x4 the spatial moments of even published layers degenerate


class BuildNetwork(Protocol):
    """Builds one anchor network with ``layer`` at every site of normalisation and activation.

    Args:
        layer: makes the searched layer for a number of features.
        in_channels, classes: of the data.
        image_size: side of the training images in pixels, at least 4; decides which strides are kept.
        width: multiplies the published numbers of channels.
        depth: multiplies the published numbers of blocks per stage, at least ``MIN_DEPTH``.
    """

    def __call__(
        self, layer: Layer, *, in_channels: int, classes: int, image_size: int, width: float, depth: float
    ) -> nn.Module: ...


class ChannelAffine(nn.Module):
    """``γ·x + β`` per channel of ``[N, C, H, W]``: the site of a linear bottleneck, where nothing is normalised.

    Source: Liu et al. 2020, arXiv:2004.02967 (sites without a nonlinearity get the affine only).
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])


def strides(image_size: int, wanted: Sequence[int]) -> list[int]:
    """``wanted`` strides for images of ``image_size`` pixels, with 1 in place of each that would go below 4x4."""
    side, kept = image_size, []
    for stride in wanted:
        shrunk = math.ceil(side / stride)
        kept.append(stride if shrunk >= MIN_SIDE else 1)
        side = shrunk if shrunk >= MIN_SIDE else side
    return kept


def scaled_channels(published: int, width: float, least: int = 8) -> int:
    """``width`` times the published channels, rounded to a multiple of 8 (so that groups divide it)."""
    return max(least, 8 * math.floor(published * width / 8 + 0.5))


def scaled_repeats(published: int, depth: float) -> int:
    """``depth`` times the published blocks of a stage; a stage of none is left out together with its stride."""
    return math.floor(published * depth + 0.5)


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the side at stride 1."""
    return nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def initialise(network: nn.Module) -> None:
    """He normal over the fan-in for convolutions, N(0, 1/fan-in) and 0 for linear layers; the layer's own is kept.

    Fan-in, because the fan-out that PyTorch counts for a depthwise kernel is C times too large. Source: He et al. 2015.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)

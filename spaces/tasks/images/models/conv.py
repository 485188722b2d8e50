"""A small convolutional network: stem, blocks of one layer each, pooling, mean over space, head."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from layersearch.spaces.tasks.images.models.classifier import ImageClassifier
from layersearch.spaces.tasks.plain_layers import seeded_conv2d

__all__ = ["MIN_POOLED", "POOLS", "STEM_KERNEL", "ConvShape", "MakeConv", "MakeHead", "conv_network"]

MakeConv: TypeAlias = Callable[[int, int, int], nn.Module]
"""``make(n_in, n_out, kernel)`` gives a layer ``[N, n_in, H, W] -> [N, n_out, H, W]``, nonlinearity included."""
MakeHead: TypeAlias = Callable[[int], nn.Module]
"""``make(features)`` gives a layer ``[N, features] -> [N, classes]``."""

POOLS = ("average", "max")
STEM_KERNEL = 3
MIN_POOLED = 4  # feature maps are not pooled below this side
_LARGEST_UNSTRIDED = 16


@dataclass(frozen=True)
class ConvShape:
    """Sizes of a ``conv_network``.

    Args:
        side: of the images in pixels. Above 16 the stem has stride 2: layers with many functions per pixel are dear.
        stem: channels of the stem.
        channels: of the blocks.
        kernel: of the blocks, odd.
        pool: ``average`` or ``max``, over 2x2 after each block whose result has a side of 4 at least.
    """

    side: int
    stem: int
    channels: tuple[int, ...]
    kernel: int
    pool: str

    @property
    def stride(self) -> int:
        """Of the stem."""
        return 2 if self.side > _LARGEST_UNSTRIDED else 1

    def blocks(self) -> Iterator[tuple[int, int, int, bool]]:
        """Inputs, outputs and side of each block, and whether it is pooled."""
        side = -(-self.side // self.stride)
        for n_in, n_out in itertools.pairwise((self.stem, *self.channels)):
            pooled = side // 2 >= MIN_POOLED
            yield n_in, n_out, side, pooled
            side = side // 2 if pooled else side


def conv_network(
    shape: ConvShape,
    conv: MakeConv,
    head: MakeHead,
    *,
    in_channels: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> ImageClassifier:
    """A plain 3x3 stem, ``conv`` in every block, batch norm after each of them, and ``head`` on the mean over space.

    So the layers made by ``conv`` get inputs of mean 0 and variance 1. The stem is drawn from ``generator``; what the
    functions make is drawn by them, in the order of the layers.
    """
    layers: list[nn.Module] = [
        seeded_conv2d(
            in_channels, shape.stem, STEM_KERNEL, shape.stride, 1, bias=False, generator=generator, dtype=dtype
        ),
        nn.BatchNorm2d(shape.stem, dtype=dtype),
    ]
    for n_in, n_out, _, pooled in shape.blocks():
        layers += [conv(n_in, n_out, shape.kernel), nn.BatchNorm2d(n_out, dtype=dtype)]
        if pooled:
            layers.append(nn.MaxPool2d(2) if shape.pool == "max" else nn.AvgPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(shape.channels[-1])]
    return ImageClassifier(*layers)

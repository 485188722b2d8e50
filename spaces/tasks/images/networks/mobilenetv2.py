"""MobileNetV2 in CIFAR form: the strides of the stem and of the second stage are 1.

Source: Sandler et al. 2018, arXiv:1801.04381, table 2.
"""

from torch import nn

from layersearch.spaces.tasks.images.networks.blocks import Layer
from layersearch.spaces.tasks.images.networks.inverted import StageOf, inverted_network

__all__ = ["mobilenetv2"]

STAGES = (
    StageOf(expansion=1, channels=16, repeats=1, stride=1, kernel=3),
    StageOf(expansion=6, channels=24, repeats=2, stride=1, kernel=3),
    StageOf(expansion=6, channels=32, repeats=3, stride=2, kernel=3),
    StageOf(expansion=6, channels=64, repeats=4, stride=2, kernel=3),
    StageOf(expansion=6, channels=96, repeats=3, stride=1, kernel=3),
    StageOf(expansion=6, channels=160, repeats=3, stride=2, kernel=3),
    StageOf(expansion=6, channels=320, repeats=1, stride=1, kernel=3),
)


def mobilenetv2(
    layer: Layer, *, in_channels: int, classes: int, image_size: int, width: float, depth: float
) -> nn.Module:
    """See ``BuildNetwork``. The linear bottlenecks get a per-channel affine only."""
    return inverted_network(
        layer,
        STAGES,
        stem=32,
        head=1280,
        excite=False,
        in_channels=in_channels,
        classes=classes,
        image_size=image_size,
        width=width,
        depth=depth,
    )

"""EfficientNet-B0 in CIFAR form: the strides of the stem and of the second stage are 1; no dropout, no drop path.

Source: Tan and Le 2019, arXiv:1905.11946, table 1; squeeze-excite ratio .25 of the block's input, as released.
"""

from torch import nn

from layersearch.spaces.tasks.images.networks.blocks import Layer
from layersearch.spaces.tasks.images.networks.inverted import StageOf, inverted_network

__all__ = ["efficientnet"]

STAGES = (
    StageOf(expansion=1, channels=16, repeats=1, stride=1, kernel=3),
    StageOf(expansion=6, channels=24, repeats=2, stride=1, kernel=3),
    StageOf(expansion=6, channels=40, repeats=2, stride=2, kernel=5),
    StageOf(expansion=6, channels=80, repeats=3, stride=2, kernel=3),
    StageOf(expansion=6, channels=112, repeats=3, stride=1, kernel=5),
    StageOf(expansion=6, channels=192, repeats=4, stride=2, kernel=5),
    StageOf(expansion=6, channels=320, repeats=1, stride=1, kernel=3),
)


def efficientnet(
    layer: Layer, *, in_channels: int, classes: int, image_size: int, width: float, depth: float
) -> nn.Module:
    """See ``BuildNetwork``. The linear bottlenecks get a per-channel affine only; squeeze-excite keeps its own SiLU."""
    return inverted_network(
        layer,
        STAGES,
        stem=32,
        head=1280,
        excite=True,
        in_channels=in_channels,
        classes=classes,
        image_size=image_size,
        width=width,
        depth=depth,
    )

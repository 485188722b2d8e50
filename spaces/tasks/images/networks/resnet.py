"""Pre-activation ResNet in CIFAR form: 3x3 stem without stride or pooling.

Source: He et al. 2016, arXiv:1603.05027. ``depth`` 1 is ResNet-50 (bottleneck blocks); below it the blocks are basic
ones, as in the published networks shallower than 50 layers.
"""

from torch import Tensor, nn

from layersearch.spaces.tasks.images.networks.blocks import (
    Layer,
    conv,
    initialise,
    scaled_channels,
    scaled_repeats,
    strides,
)

__all__ = ["resnet"]

REPEATS = (3, 4, 6, 3)
CHANNELS = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
EXPANSION = 4


class _Block(nn.Module):
    """``shortcut + f(layer(x))``; the shortcut is projected from ``layer(x)`` where the shape changes."""

    def __init__(self, layer: Layer, n_in: int, planes: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        n_out = planes * EXPANSION if bottleneck else planes
        self.first = layer(n_in)
        if bottleneck:
            self.residual = nn.Sequential(
                conv(n_in, planes, 1),
                layer(planes),
                conv(planes, planes, 3, stride),
                layer(planes),
                conv(planes, n_out, 1),
            )
        else:
            self.residual = nn.Sequential(conv(n_in, planes, 3, stride), layer(planes), conv(planes, n_out, 3))
        self.shortcut = conv(n_in, n_out, 1, stride) if stride != 1 or n_in != n_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.residual(y)  # type: ignore[no-any-return]


def resnet(layer: Layer, *, in_channels: int, classes: int, image_size: int, width: float, depth: float) -> nn.Module:
    """See ``BuildNetwork``. Every site is normalisation + activation."""
    bottleneck = depth >= 1
    n = scaled_channels(CHANNELS[0], width, least=16)
    modules: list[nn.Module] = [conv(in_channels, n, 3)]
    stages = [
        (scaled_channels(channels, width, least=16), repeats, stride)
        for channels, published, stride in zip(CHANNELS, REPEATS, STRIDES, strict=True)
        if (repeats := scaled_repeats(published, depth))
    ]
    for (planes, repeats, _), first in zip(stages, strides(image_size, [s for _, _, s in stages]), strict=True):
        for i in range(repeats):
            modules.append(_Block(layer, n, planes, first if i == 0 else 1, bottleneck))
            n = planes * EXPANSION if bottleneck else planes
    network = nn.Sequential(*modules, layer(n), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, classes))
    initialise(network)
    return network

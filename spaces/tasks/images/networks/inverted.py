"""The inverted bottleneck that MobileNetV2 and EfficientNet are made of, and the network around it."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from layersearch.spaces.tasks.images.networks.blocks import (
    ChannelAffine,
    Layer,
    conv,
    initialise,
    scaled_channels,
    scaled_repeats,
    strides,
)

__all__ = ["StageOf", "inverted_network"]

SQUEEZE = 4  # the published ratio .25, of the block's input


class StageOf(NamedTuple):
    """One row of the published table; ``stride`` is that of the CIFAR form."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


class _SqueezeExcite(nn.Module):
    """``x · σ(W₂ silu(W₁ mean(x)))``, with its own activations: it is a part of the network, not a searched site.

    Source: Hu et al. 2018, arXiv:1709.01507, in the form of EfficientNet.
    """

    def __init__(self, num_features: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(num_features, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, num_features, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)  # type: ignore[no-any-return]


class _InvertedBlock(nn.Module):
    """Expand, depthwise, (squeeze-excite,) project; the projection is linear and gets a per-channel affine only."""

    def __init__(self, layer: Layer, n_in: int, n_out: int, stage: StageOf, stride: int, excite: bool) -> None:
        super().__init__()
        hidden = n_in * stage.expansion
        parts: list[nn.Module] = []
        if stage.expansion != 1:
            parts += [conv(n_in, hidden, 1), layer(hidden)]
        parts += [conv(hidden, hidden, stage.kernel, stride, groups=hidden), layer(hidden)]
        if excite:
            parts.append(_SqueezeExcite(hidden, max(1, n_in // SQUEEZE)))
        self.body = nn.Sequential(*parts, conv(hidden, n_out, 1), ChannelAffine(n_out))
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


def inverted_network(
    layer: Layer,
    stages: Sequence[StageOf],
    *,
    stem: int,
    head: int,
    excite: bool,
    in_channels: int,
    classes: int,
    image_size: int,
    width: float,
    depth: float,
) -> nn.Module:
    """A 3x3 stem without stride, the ``stages``, a 1x1 head, mean over space, and a linear classifier.

    Unlike the published networks, ``width`` < 1 narrows the head, too: at these sizes it would dominate the cost.
    """
    n = scaled_channels(stem, width)
    modules: list[nn.Module] = [conv(in_channels, n, 3), layer(n)]
    kept = [stage for stage in stages if scaled_repeats(stage.repeats, depth)]
    for stage, first in zip(kept, strides(image_size, [s.stride for s in kept]), strict=True):
        n_out = scaled_channels(stage.channels, width)
        for i in range(scaled_repeats(stage.repeats, depth)):
            modules.append(_InvertedBlock(layer, n, n_out, stage, first if i == 0 else 1, excite))
            n = n_out
    n_head = scaled_channels(head, width)
    modules += [conv(n, n_head, 1), layer(n_head), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_head, classes)]
    network = nn.Sequential(*modules)
    initialise(network)
    return network

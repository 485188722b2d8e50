"""Published layers as genomes of images, and ordinary networks of as many parameters: seeds and baselines.

A design is the kind of model, the basis, its grid or degree, base branch and domain map; sizes are the run's, and
weights start by our own rules. Normalisation is that of our models, batch norm between convolutions, in place of the
instance norms of the published layers; deviations of our bases stand with the bases.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.genome import make as plain
from layersearch.spaces.kan.images.genome import CONV, KAT, MAX_WIDTH, ImageGenome, make
from layersearch.spaces.kan.images.network import count_parameters
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.tasks.images.models import ConvShape, ViTShape

__all__ = [
    "CONV_RELU",
    "DESIGNS",
    "VIT_GELU",
    "design",
    "known",
    "largest",
    "of_parameters",
    "ordinary",
    "plain_like",
]

CONV_RELU, VIT_GELU = "conv-relu", "vit-gelu"
"""The ordinary networks."""

_LAYERS: dict[str, tuple[str, KANGenome]] = {
    # github.com/IvanDrokin/torch-conv-kan, arXiv:2407.01092: the first five, with the defaults of their classes.
    "kan-conv": (CONV, plain("bspline", {"grid": 5, "order": 3}, base="gelu", domain="none")),
    "fastkan-conv": (CONV, plain("rbf", {"grid": 8, "width": 1.0, "learn": False}, domain="layernorm")),
    "kacn": (CONV, plain("chebyshev", {"degree": 3}, base="none", domain="tanh")),
    "kagn": (CONV, plain("gram", {"degree": 3, "learn": True}, domain="tanh")),
    # github.com/Adamdad/kat, arXiv:2409.10594
    "kat-vit": (KAT, PUBLISHED["kat"]),
}
DESIGNS = tuple(_LAYERS)


def known(name: str, conv: ConvShape, vit: ViTShape) -> ImageGenome:
    """A published design in the shape of its kind. Raises: KeyError for a name that is not in ``DESIGNS``."""
    kind, layer = _LAYERS[name]
    return make(layer, conv if kind == CONV else vit)


def design(genome: ImageGenome) -> str | None:
    """Name of the published design that a genome has, whatever its sizes and start."""
    layer = genome.layer
    for name, (kind, its) in _LAYERS.items():
        if kind == genome.kind and replace(its, init=layer.init, hidden=layer.hidden) == layer:
            return name
    return None


def ordinary(genome: ImageGenome, in_channels: int, classes: int) -> ImageGenome | None:
    """The convolutional network with ReLU, or the transformer with GELU, that has the parameters of ``genome``.

    None if it has more of them at its smallest.
    """
    return of_parameters(plain_like(genome), count_parameters(genome, in_channels, classes), in_channels, classes)


def of_parameters(genome: ImageGenome, most: int, in_channels: int, classes: int) -> ImageGenome | None:
    """``genome`` with at most ``most`` parameters, and as near to that as whole widths come; see ``largest``."""
    return largest(genome, lambda sized: count_parameters(sized, in_channels, classes) <= most)


def largest(genome: ImageGenome, fits: Callable[[ImageGenome], bool]) -> ImageGenome | None:
    """``genome`` in the largest legal size that ``fits``: all channels grow alike, or the hidden layers do.

    None if the smallest one does not fit; what is larger than one that does not fit must not fit either.
    """
    if not fits(_scaled(genome, 1)):
        return None
    widest = 4 * MAX_WIDTH if isinstance(genome.shape, ViTShape) else MAX_WIDTH
    size = 1
    while 2 * size <= widest and fits(_scaled(genome, 2 * size)):
        size *= 2
    step = size
    while step > 1:
        step //= 2
        if size + step <= widest and fits(_scaled(genome, size + step)):
            size += step
    return _scaled(genome, size)


def plain_like(genome: ImageGenome[Any]) -> ImageGenome:
    """The convolutional network with ReLU, or the transformer with GELU, of the very shape of ``genome``."""
    return make(plain(MLP, base="gelu" if isinstance(genome.shape, ViTShape) else "relu"), genome.shape)


def _scaled(genome: ImageGenome, size: int) -> ImageGenome:
    """With a size that rises with ``size``, a whole number from 1 on."""
    shape = genome.shape
    if isinstance(shape, ViTShape):
        return replace(genome, shape=replace(shape, hidden=size))
    widest = max(shape.stem, *shape.channels)
    stem, *channels = (max(1, round(width * size / widest)) for width in (shape.stem, *shape.channels))
    return replace(genome, shape=replace(shape, stem=stem, channels=tuple(channels)))

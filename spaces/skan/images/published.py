"""Designs with a name: seeds, and single bases and ordinary networks of as many parameters to compare them with.

Of the published S-ConvKAN no layout was read (see ``skan.published``): designs are the pools of S-KAN, and the network
around them is that of kan's published convolutions.
"""

from dataclasses import replace

from layersearch.spaces.kan.images.genome import ImageGenome
from layersearch.spaces.kan.images.genome import make as make_kan
from layersearch.spaces.skan.images.genome import SelectingGenome, make
from layersearch.spaces.skan.published import PUBLISHED, single
from layersearch.spaces.tasks.images.models import ConvShape

__all__ = ["DESIGNS", "design", "known", "single_conv"]

_LAYERS = {name.replace("skan", "sconvkan"): layer.with_widths(()) for name, layer in PUBLISHED.items()}
DESIGNS = tuple(_LAYERS)


def known(name: str, shape: ConvShape) -> SelectingGenome:
    """A design in a shape. Raises: KeyError for a name that is not in ``DESIGNS``."""
    return make(_LAYERS[name], shape)


def design(genome: SelectingGenome) -> str | None:
    """Name of the design that a genome has, whatever its sizes and start."""
    for name, layer in _LAYERS.items():
        if replace(layer, init=genome.layer.init) == genome.layer:
            return name
    return None


def single_conv(basis: str, shape: ConvShape) -> ImageGenome:
    """The network of one basis of a pool, at the settings that it has in ``sconvkan``, or at its own ones."""
    return make_kan(single(basis, ()), shape)

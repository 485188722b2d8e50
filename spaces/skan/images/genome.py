"""What a genome of the skan space is where the data are images: how channels choose, and the network around them."""

from typing import Any, TypeAlias

from typing_extensions import TypeIs

from layersearch.errors import GenomeError
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan.images import genome as kan
from layersearch.spaces.kan.images.genome import CONV, ImageGenome, check_shape, need, read, written
from layersearch.spaces.skan import genome as plain
from layersearch.spaces.skan.genome import SKANGenome
from layersearch.spaces.tasks.images.models import ConvShape

__all__ = ["AnyImageGenome", "SelectingGenome", "from_json", "make", "selects", "shape_of", "to_json"]

_LAYER_KEYS = ("pool", "gate", "cooling", "cold", "shares", "pruning", "base", "domain", "init")

SelectingGenome: TypeAlias = ImageGenome[SKANGenome]
"""An S-ConvKAN: its shape is a ``ConvShape``, its layer has no ``hidden``; the head ``kan`` selects, too."""
AnyImageGenome: TypeAlias = ImageGenome[SKANGenome] | ImageGenome
"""Searched are networks that select; those of kan are what they are compared with."""


def selects(genome: AnyImageGenome) -> TypeIs[SelectingGenome]:
    return isinstance(genome.layer, SKANGenome)


def shape_of(genome: SelectingGenome) -> ConvShape:
    assert isinstance(genome.shape, ConvShape), "checked when the genome was made"
    return genome.shape


def make(layer: SKANGenome, shape: ConvShape, head: str = "linear") -> SelectingGenome:
    """A checked genome. Raises: GenomeError with one sentence."""
    genome = ImageGenome(layer.with_widths(()), shape, head)
    check_shape(genome)
    return genome


def to_json(genome: AnyImageGenome) -> JsonObject:
    """Plain data; inverse of ``from_json``."""
    if not selects(genome):
        return kan.to_json(genome)
    layer = plain.to_json(genome.layer)
    return written(genome, {key: layer[key] for key in _LAYER_KEYS})


def from_json(data: Any) -> AnyImageGenome:
    """The genome in plain data that anyone may have written; one whose layer has a ``basis`` is of the kan space.

    Raises: GenomeError with one sentence for anything malformed, illegal or over the limits.
    """
    layer = data.get("layer") if isinstance(data, dict) else None
    if isinstance(layer, dict) and "basis" in layer and "pool" not in layer:
        return kan.from_json(data)
    genome = read(data, _layer)
    if genome.kind != CONV:
        raise GenomeError(f"kind of a genome that selects must be '{CONV}', got '{genome.kind}'; correct the genome")
    check_shape(genome)
    return genome


def _layer(data: Any) -> SKANGenome:
    need("layer of a genome", data, _LAYER_KEYS)
    layer = plain.from_json({"format": plain.FORMAT, "hidden": [], **data})
    assert isinstance(layer, SKANGenome), "it has a pool"
    return layer

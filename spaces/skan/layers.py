"""Networks of the skan space as modules, from the plain data that a run or a file holds."""

from collections.abc import Callable
from functools import partial

from torch import nn

from layersearch.errors import BadInputError
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan import layers as kan
from layersearch.spaces.kan.images.genome import is_image_genome
from layersearch.spaces.skan import formula as printed
from layersearch.spaces.skan.genome import SKANGenome, from_json, to_json
from layersearch.spaces.skan.images import formula as printed_images
from layersearch.spaces.skan.images import genome as images
from layersearch.spaces.skan.images import published
from layersearch.spaces.skan.images.network import build as build_classifier
from layersearch.spaces.skan.network import build as build_network
from layersearch.spaces.skan.published import PUBLISHED

__all__ = ["build", "formula", "known", "latex"]


def known(name: str) -> JsonObject:
    """Genome of a design by name, with two hidden layers of 8, or for images of 28x28. Raises: UnknownNameError."""
    if name in published.DESIGNS:
        return images.to_json(published.known(name, kan.CONV_28))
    if name not in PUBLISHED:
        raise unknown_name("design", name, [*PUBLISHED, *published.DESIGNS])
    return to_json(PUBLISHED[name])


def build(
    genome: JsonObject, num_features: int, lowering: str, groups: int | None = None, out_features: int = 1
) -> nn.Module:
    """A module ``[..., num_features] -> [..., out_features]`` that has not selected yet, with fresh weights.

    Of images ``[N, num_features, S, S] -> [N, out_features]``, with the side S of the genome. Its layers are
    ``SelectiveKANLinear`` or ``SelectiveKANConv2d``: ``set_stage`` and ``pruned`` of each take it through the stages.

    Raises: GenomeError; BadInputError for another lowering than torch, or ``groups``, which belong to the genome.
    """
    made = _maker(genome)
    if made is None:
        return kan.build(genome, num_features, lowering, groups, out_features)
    if lowering != "torch":
        raise BadInputError(f"lowering must be torch for a network of skan, got '{lowering}'; leave it out")
    if groups is not None:
        raise BadInputError(f"nodes of skan choose one by one and have no groups, got {groups}; leave them out")
    return made(num_features, out_features)


def _maker(genome: JsonObject) -> Callable[[int, int], nn.Module] | None:
    """What builds a network that selects; None for one of the kan space."""
    if is_image_genome(genome):
        of_images = images.from_json(genome)
        return partial(build_classifier, of_images) if images.selects(of_images) else None
    parsed = from_json(genome)
    return partial(build_network, parsed) if isinstance(parsed, SKANGenome) else None


def formula(genome: JsonObject) -> str:
    if is_image_genome(genome):
        return printed_images.formula(images.from_json(genome))
    return printed.formula(from_json(genome))


def latex(genome: JsonObject) -> str:
    if is_image_genome(genome):
        return printed_images.latex(images.from_json(genome))
    return printed.latex(from_json(genome))

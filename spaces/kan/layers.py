"""Networks of the kan space as modules, from the plain data that a run or a file holds."""

from torch import nn

from layersearch.errors import BadInputError
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan import formula as printed
from layersearch.spaces.kan.genome import from_json, to_json
from layersearch.spaces.kan.images import formula as printed_images
from layersearch.spaces.kan.images import genome as images
from layersearch.spaces.kan.images import published
from layersearch.spaces.kan.images.network import build as build_classifier
from layersearch.spaces.kan.images.published import DESIGNS
from layersearch.spaces.kan.network import build as build_network
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.tasks.images.models import ConvShape, ViTShape

__all__ = ["CONV_28", "build", "formula", "known", "latex"]

CONV_28 = ConvShape(side=28, stem=12, channels=(16, 24), kernel=3, pool="max")
"""Of designs without a run."""
_VIT = ViTShape(side=28, patch=4, width=32, depth=3, heads=4, hidden=64)


def known(name: str) -> JsonObject:
    """Genome of a published design, with two hidden layers of 8, or for images of 28x28. Raises: UnknownNameError."""
    if name in DESIGNS:
        return images.to_json(published.known(name, CONV_28, _VIT))
    if name not in PUBLISHED:
        raise unknown_name("design", name, [*PUBLISHED, *DESIGNS])
    return to_json(PUBLISHED[name])


def build(
    genome: JsonObject, num_features: int, lowering: str, groups: int | None = None, out_features: int = 1
) -> nn.Module:
    """A module ``[..., num_features] -> [..., out_features]`` with fresh weights from torch's generator.

    Of images ``[N, num_features, S, S] -> [N, out_features]``, with the side S of the genome.

    Raises: GenomeError; BadInputError for another lowering than torch, or ``groups``, which belong to the genome.
    """
    if lowering != "torch":
        raise BadInputError(f"lowering must be torch for a network of kan, got '{lowering}'; leave it out")
    if groups is not None:
        raise BadInputError(f"groups are part of a genome of kan, got {groups}; leave them out")
    if images.is_image_genome(genome):
        return build_classifier(images.from_json(genome), num_features, out_features)
    return build_network(from_json(genome), num_features, out_features)


def formula(genome: JsonObject) -> str:
    if images.is_image_genome(genome):
        return printed_images.formula(images.from_json(genome))
    return printed.formula(from_json(genome))


def latex(genome: JsonObject) -> str:
    if images.is_image_genome(genome):
        return printed_images.latex(images.from_json(genome))
    return printed.latex(from_json(genome))

"""Networks of the kan space as modules, from the plain data that a run or a file holds."""

from torch import nn

from layersearch.errors import BadInputError
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan import formula as printed
from layersearch.spaces.kan.genome import from_json, to_json
from layersearch.spaces.kan.network import build as build_network
from layersearch.spaces.kan.published import PUBLISHED

__all__ = ["build", "formula", "known", "latex"]


def known(name: str) -> JsonObject:
    """Genome of a published design, with two hidden layers of 8. Raises: UnknownNameError."""
    if name not in PUBLISHED:
        raise unknown_name("design", name, list(PUBLISHED))
    return to_json(PUBLISHED[name])


def build(
    genome: JsonObject, num_features: int, lowering: str, groups: int | None = None, out_features: int = 1
) -> nn.Module:
    """A module ``[..., num_features] -> [..., out_features]`` with fresh weights from torch's generator.

    Raises: GenomeError; BadInputError for another lowering than torch, or ``groups``, which belong to the genome.
    """
    if lowering != "torch":
        raise BadInputError(f"lowering must be torch for a network of kan, got '{lowering}'; leave it out")
    if groups is not None:
        raise BadInputError(f"groups are part of a genome of kan, got {groups}; leave them out")
    return build_network(from_json(genome), num_features, out_features)


def formula(genome: JsonObject) -> str:
    return printed.formula(from_json(genome))


def latex(genome: JsonObject) -> str:
    return printed.latex(from_json(genome))

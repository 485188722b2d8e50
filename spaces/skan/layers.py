"""Networks of the skan space as modules, from the plain data that a run or a file holds."""

from torch import nn

from layersearch.errors import BadInputError
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan import layers as kan
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.skan import formula as printed
from layersearch.spaces.skan.genome import from_json, to_json
from layersearch.spaces.skan.network import build as build_network
from layersearch.spaces.skan.published import PUBLISHED

__all__ = ["build", "formula", "known", "latex"]


def known(name: str) -> JsonObject:
    """Genome of a design by name, with two hidden layers of 8. Raises: UnknownNameError."""
    if name not in PUBLISHED:
        raise unknown_name("design", name, list(PUBLISHED))
    return to_json(PUBLISHED[name])


def build(
    genome: JsonObject, num_features: int, lowering: str, groups: int | None = None, out_features: int = 1
) -> nn.Module:
    """A module ``[..., num_features] -> [..., out_features]`` that has not selected yet, with fresh weights.

    Its layers are ``SelectiveKANLinear``: ``set_stage`` and ``pruned`` of each take it through the stages.

    Raises: GenomeError; BadInputError for another lowering than torch, or ``groups``, which belong to the genome.
    """
    parsed = from_json(genome)
    if isinstance(parsed, KANGenome):
        return kan.build(genome, num_features, lowering, groups, out_features)
    if lowering != "torch":
        raise BadInputError(f"lowering must be torch for a network of skan, got '{lowering}'; leave it out")
    if groups is not None:
        raise BadInputError(f"nodes of skan choose one by one and have no groups, got {groups}; leave them out")
    return build_network(parsed, num_features, out_features)


def formula(genome: JsonObject) -> str:
    return printed.formula(from_json(genome))


def latex(genome: JsonObject) -> str:
    return printed.latex(from_json(genome))

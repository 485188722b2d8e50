"""Layers of the evonorm space as modules, from the plain data that a run or a file holds."""

import torch
from torch import nn

from layersearch.primitives.graph_json import graph_from_json, graph_to_json
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.printing import formula as printed
from layersearch.primitives.printing import latex as printed_latex
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.evonorm.published import PUBLISHED

__all__ = ["build", "formula", "known", "latex"]


def known(name: str) -> JsonObject:
    """Genome of a published layer, in exact numerics. Raises: UnknownNameError."""
    if name not in PUBLISHED:
        raise unknown_name("layer", name, list(PUBLISHED))
    return graph_to_json(PUBLISHED[name])


def build(genome: JsonObject, num_features: int, lowering: str, groups: int | None) -> nn.Module:
    """A module ``[N, C, H, W] -> [N, C, H, W]``, as ``build_layer``, with all its kernels built.

    Raises: GenomeError, KernelError.
    """
    layer = build_layer(graph_from_json(genome), num_features, lowering=lowering, groups=groups).eval()
    with torch.no_grad():  # eval mode has a kernel of its own, else built in the midst of a first evaluation
        layer(layer.get_parameter("weight").new_zeros(1, num_features, 1, 1))
    return layer.train()


def formula(genome: JsonObject) -> str:
    return printed(graph_from_json(genome))


def latex(genome: JsonObject) -> str:
    return printed_latex(graph_from_json(genome))

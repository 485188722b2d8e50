"""Genomes as networks: with all spaces of the pool, and pruned to what the nodes chose."""

import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch

from layersearch.errors import GenomeError, LayerSearchError
from layersearch.primitives.basis import BASES, Basis
from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.primitives.layers.selective import SelectiveKANLinear
from layersearch.spaces.kan.choices import NONE
from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.choices import OWN
from layersearch.spaces.skan.genome import SKANGenome

__all__ = ["Choices", "Selection", "build", "choices_of", "most_parameters", "prune", "pruned_network", "selection_of"]

Choices = tuple[tuple[int, ...], ...]
"""Per layer, the index into the pool of each of its nodes."""
Selection = tuple[tuple[str, ...], ...]
"""Per layer, the name of each node's basis."""


def build(
    genome: SKANGenome,
    in_features: int,
    out_features: int = 1,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """The network before it is pruned. Weights are drawn on the CPU from ``generator``, or from torch's own one.

    Raises: GenomeError if the layers cannot be made for these widths.
    """
    try:
        layers = [
            SelectiveKANLinear(*plan, gate=genome.gate, generator=generator, dtype=dtype, **_shared(genome, i))
            for i, plan in enumerate(_plans(genome, in_features, out_features))
        ]
    except LayerSearchError as error:
        raise GenomeError(f"the layers of a genome must fit its widths, but {error}") from None
    return Network(layers, in_features, out_features).to(device)


def pruned_network(
    genome: SKANGenome,
    in_features: int,
    out_features: int,
    choices: Choices,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """The network in which every node has one basis, with fresh weights. Raises: GenomeError."""
    plans = _plans(genome, in_features, out_features)
    if len(choices) != len(plans):
        raise GenomeError(
            f"a selection must have a row for each of {len(plans)} layers, got {len(choices)}; correct it"
        )
    try:
        layers = [
            MixedKANLinear(*plan, choice, generator=generator, dtype=dtype, **_shared(genome, i))
            for i, (plan, choice) in enumerate(zip(plans, choices, strict=True))
        ]
    except LayerSearchError as error:
        raise GenomeError(f"a selection must fit the layers of its genome, but {error}") from None
    return Network(layers, in_features, out_features).to(device)


def prune(network: Network) -> Network:
    """A network of ``build``, pruned to what its nodes choose now."""
    layers = [cast(SelectiveKANLinear, layer).pruned() for layer in network]
    return Network(layers, network.in_features, network.out_features).train(network.training)


def most_parameters(genome: SKANGenome, in_features: int, out_features: int) -> int:
    """Upper bound of the trained numbers of the pruned network, whatever the nodes choose."""
    total = 0
    for inputs, outputs, rows in _plans(genome, in_features, out_features):
        learned = [_learned(row, inputs) for row in rows]
        functions = max(row.n_functions for row in rows)
        total += outputs * (inputs * (functions + (genome.base != NONE)) + 1) + sum(learned)
    return total


def selection_of(genome: SKANGenome, choices: Choices) -> Selection:
    """Indices as names."""
    return tuple(tuple(genome.bases[m] for m in choice) for choice in choices)


def choices_of(genome: SKANGenome, selection: Sequence[Sequence[str]]) -> Choices:
    """Names as indices. Raises: GenomeError for a name that is not in the pool."""
    names = list(genome.bases)
    for name in {name for layer in selection for name in layer}:
        if name not in names:
            raise GenomeError(f"a selection must be of the pool {', '.join(names)}, got {name!r:.40}; correct it")
    return tuple(tuple(names.index(name) for name in layer) for layer in selection)


def _plans(genome: SKANGenome, in_features: int, out_features: int) -> tuple[tuple[int, int, tuple[Basis, ...]], ...]:
    """Inputs, outputs and pool of each layer. A rational starts as the identity in the first one, as in KAT."""
    widths = (in_features, *genome.hidden, out_features)
    found = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        rows = []
        for name, settings in genome.pool:
            values: dict[str, Any] = dict(settings)
            if "start" in values and i == 0:
                values["start"] = "identity"
            rows.append(BASES[name].configure(**values))
        found.append((inputs, outputs, tuple(rows)))
    return tuple(found)


def _shared(genome: SKANGenome, i: int) -> dict[str, Any]:
    """What layer ``i`` has beside its size and pool; layer norm would mix the inputs of the first one."""
    domain = None if genome.domain == OWN else genome.domain
    return {
        "base": None if genome.base == NONE else genome.base,
        "domain": NONE if domain == "layernorm" and i == 0 else domain,
        "init": genome.init,
    }


def _learned(row: Basis, inputs: int) -> int:
    state = row.state(inputs) if row.learned else {}
    return sum(tensor.numel() for name, tensor in state.items() if name in row.learned)

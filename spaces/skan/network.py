"""Genomes as networks: with all spaces of the pool, and pruned to what the nodes chose."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import GenomeError, LayerSearchError
from layersearch.primitives.basis import BASES, Basis
from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.primitives.layers.selective import SelectiveKANLinear
from layersearch.spaces.kan.choices import NONE
from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.choices import DROP, OWN
from layersearch.spaces.skan.genome import SKANGenome

__all__ = [
    "Choices",
    "Selection",
    "build",
    "choices_of",
    "most_parameters",
    "plans",
    "prune",
    "pruned_network",
    "selection_of",
    "set_stage",
]

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
            for i, plan in enumerate(plans(genome, in_features, out_features))
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
    layer_plans = plans(genome, in_features, out_features)
    if len(choices) != len(layer_plans):
        raise GenomeError(
            f"a selection must have a row for each of {len(layer_plans)} layers, got {len(choices)}; correct it"
        )
    try:
        layers = [
            MixedKANLinear(*plan, choice, generator=generator, dtype=dtype, **_shared(genome, i))
            for i, (plan, choice) in enumerate(zip(layer_plans, choices, strict=True))
        ]
    except LayerSearchError as error:
        raise GenomeError(f"a selection must fit the layers of its genome, but {error}") from None
    return Network(layers, in_features, out_features).to(device)


@torch.no_grad()
def prune(network: Network, pruning: str, data: Tensor) -> Network:
    """A network of ``build`` with one space per node, chosen and fitted as ``SKANGenome.pruning`` says.

    Args:
        data: inputs of the network ``[N, I]``; each layer is fitted on what it gets of them.
    """
    was_training, x = network.training, data
    network.eval()
    layers: list[MixedKANLinear] = []
    for layer in map(_selective, network):
        layers.append(layer.pruned("gate") if pruning == DROP else layer.pruned(pruning, x))  # type: ignore[arg-type]
        x = layer(x)
    network.train(was_training)
    return Network(layers, network.in_features, network.out_features).train(was_training)


def set_stage(network: Network, temperature: float | None, generator: torch.Generator) -> None:
    """Puts all gates of a network of ``build`` there (``SelectiveLayer.set_stage``)."""
    for layer in map(_selective, network):
        layer.set_stage(temperature, generator)


def _selective(layer: nn.Module) -> SelectiveKANLinear:
    assert isinstance(layer, SelectiveKANLinear)
    return layer


def most_parameters(genome: SKANGenome, in_features: int, out_features: int) -> int:
    """Upper bound of the trained numbers of the pruned network, whatever the nodes choose."""
    total = 0
    for inputs, outputs, rows in plans(genome, in_features, out_features):
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


def plans(genome: SKANGenome, in_features: int, out_features: int) -> tuple[tuple[int, int, tuple[Basis, ...]], ...]:
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

"""Genomes as networks: with all spaces of the pool, and pruned to what the nodes chose."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import GenomeError, LayerSearchError
from layersearch.primitives.basis import BASES, Basis
from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.primitives.layers.selective import SelectiveKANConv2d, SelectiveKANLinear, SelectiveLayer
from layersearch.spaces.kan.choices import NONE, Value
from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.choices import DROP, OWN
from layersearch.spaces.skan.genome import SKANGenome
from layersearch.spaces.skan.selection import Choices

__all__ = [
    "build",
    "layer_parameters",
    "most_parameters",
    "plans",
    "pool_of",
    "prune",
    "pruned_modules",
    "pruned_network",
    "set_stage",
    "shared",
]


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
            SelectiveKANLinear(*plan, gate=genome.gate, generator=generator, dtype=dtype, **shared(genome, i == 0))
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
            MixedKANLinear(*plan, choice, generator=generator, dtype=dtype, **shared(genome, i == 0))
            for i, (plan, choice) in enumerate(zip(layer_plans, choices, strict=True))
        ]
    except LayerSearchError as error:
        raise GenomeError(f"a selection must fit the layers of its genome, but {error}") from None
    return Network(layers, in_features, out_features).to(device)


def prune(network: Network, pruning: str, data: Tensor) -> Network:
    """A network of ``build`` with one space per node, chosen and fitted as ``SKANGenome.pruning`` says.

    Args:
        data: inputs of the network ``[N, I]``; each layer is fitted on what it gets of them.
    """
    layers = pruned_modules(network, pruning, data, len(data))
    return Network(layers, network.in_features, network.out_features).train(network.training)


@torch.no_grad()
def pruned_modules(network: nn.Sequential, pruning: str, data: Tensor, at_once: int) -> list[nn.Module]:
    """The modules of a network whose selective layers are in its row, each of them pruned; the others as they are.

    Args:
        pruning: as in ``SKANGenome``.
        data: inputs ``[N, …]``; each layer is fitted on what it gets of them, in evaluation.
        at_once: rows that are evaluated together.
    """
    was_training, parts = network.training, torch.split(data, at_once)
    network.eval()
    found: list[nn.Module] = []
    for module in network:
        if isinstance(module, SelectiveKANLinear | SelectiveKANConv2d):
            kept = module.pruned("gate") if pruning == DROP else module.pruned(pruning, torch.cat(parts))  # type: ignore[arg-type]
            found.append(kept)
        else:
            found.append(module)
        parts = tuple(module(part) for part in parts)
    network.train(was_training)
    return found


def set_stage(network: nn.Module, temperature: float | None, generator: torch.Generator) -> None:
    """Puts all gates of a network there (``SelectiveLayer.set_stage``)."""
    for module in network.modules():
        if isinstance(module, SelectiveLayer):
            module.set_stage(temperature, generator)


def most_parameters(genome: SKANGenome, in_features: int, out_features: int) -> int:
    """Upper bound of the trained numbers of the pruned network, whatever the nodes choose."""
    return sum(layer_parameters(genome, *plan) for plan in plans(genome, in_features, out_features))


def layer_parameters(genome: SKANGenome, inputs: int, outputs: int, rows: Sequence[Basis], area: int = 1) -> int:
    """That of a layer with the pool ``rows``, and a kernel of ``area`` places."""
    learned = sum(_learned(row, inputs) for row in rows)
    per_edge = max(row.n_functions for row in rows) + (genome.base != NONE)
    return inputs * outputs * area * per_edge + outputs + learned


def plans(genome: SKANGenome, in_features: int, out_features: int) -> tuple[tuple[int, int, tuple[Basis, ...]], ...]:
    """Inputs, outputs and pool of each layer. A rational starts as the identity in the first one, as in KAT."""
    widths = (in_features, *genome.hidden, out_features)
    found = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        found.append((inputs, outputs, pool_of(genome, {"start": "identity"} if i == 0 else {})))
    return tuple(found)


def pool_of(genome: SKANGenome, instead: Mapping[str, Value]) -> tuple[Basis, ...]:
    """The rows of a pool, with these settings in place of its own where a basis has them."""
    rows = []
    for name, settings in genome.pool:
        values: dict[str, Any] = {key: instead.get(key, value) for key, value in settings}
        rows.append(BASES[name].configure(**values))
    return tuple(rows)


def shared(genome: SKANGenome, takes_inputs: bool) -> dict[str, Any]:
    """What a layer has beside its size and pool; layer norm would mix the inputs of the network."""
    domain = None if genome.domain == OWN else genome.domain
    return {
        "base": None if genome.base == NONE else genome.base,
        "domain": NONE if domain == "layernorm" and takes_inputs else domain,
        "init": genome.init,
    }


def _learned(row: Basis, inputs: int) -> int:
    state = row.state(inputs) if row.learned else {}
    return sum(tensor.numel() for name, tensor in state.items() if name in row.learned)

"""What the nodes of a network chose: read from a network or its checkpoint, and as it is stored."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from layersearch.errors import BadInputError, GenomeError
from layersearch.primitives.layers.mixed import MixedKANConv2d, MixedKANLinear
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.skan.genome import SKANGenome
from layersearch.spaces.tasks.checkpoint import MODEL, unpack

__all__ = ["Choices", "choices_of", "chosen_among", "chosen_in", "chosen_of", "layers_in", "selection_of"]

Choices = tuple[tuple[int, ...], ...]
"""Per layer, the index into the pool of each of its nodes."""


def chosen_in(checkpoint: bytes) -> Choices | None:
    """What was chosen, of the checkpoint of a pruned network; None if it is not pruned yet. Raises: StoreError."""
    return chosen_among(unpack(checkpoint)[0], MODEL)


def chosen_among(tensors: Mapping[str, Tensor], prefix: str) -> Choices | None:
    """The same of the tensors of a network, under names with this prefix."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.choice")
    found = {int(match[1]): tensor for name, tensor in tensors.items() if (match := pattern.fullmatch(name))}
    return tuple(tuple(found[place].flatten().tolist()) for place in sorted(found)) or None


def chosen_of(network: nn.Module) -> Choices | None:
    """The same of a network."""
    layers = [module for module in network.modules() if isinstance(module, MixedKANLinear | MixedKANConv2d)]
    return tuple(tuple(layer.choice.tolist()) for layer in layers) or None


def selection_of(layer: SKANGenome, network: nn.Module) -> JsonObject | None:
    """``{"layers": …}``, per layer the name of each node's basis; None for a network that was not pruned."""
    chosen = chosen_of(network)
    return None if chosen is None else {"layers": [[layer.bases[m] for m in choice] for choice in chosen]}


def layers_in(selection: JsonObject | None) -> list[list[str]]:
    """The names in a selection. Raises: BadInputError if nothing was selected yet."""
    if selection is None:
        raise BadInputError(
            "an export of skan must know what the nodes chose in training, and no training of this genome is recorded; "
            "name an evaluated candidate of a run"
        )
    layers: list[list[str]] = selection["layers"]
    return layers


def choices_of(layer: SKANGenome, names: Sequence[Sequence[str]]) -> Choices:
    """Names as indices. Raises: GenomeError for a name that is not in the pool."""
    pool = list(layer.bases)
    for name in {name for row in names for name in row}:
        if name not in pool:
            raise GenomeError(f"a selection must be of the pool {', '.join(pool)}, got {name!r:.40}; correct it")
    return tuple(tuple(pool.index(name) for name in row) for row in names)

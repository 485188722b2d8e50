"""A trained KAN as edges: every layer is a table of functions of one variable each, summed per output.

What a layer sees are its *sources*: its inputs or, behind a layer norm, the normalised inputs, beside which the base
branch still sees the inputs themselves. Everything is computed in float64 and in eval mode.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.layers.linear import KANLinear

__all__ = ["EPS", "Chain", "EdgeLayer", "Source", "chain_of"]

EPS = 1e-5
"""Under the root of the layer norm, as in ``layers.domain_map``."""


@dataclass(frozen=True)
class Source:
    """Input ``index`` of a layer, as it comes or layer-normalised."""

    index: int
    normalised: bool = False


class EdgeLayer:
    """One ``KANLinear`` as functions of its sources. A copy is read; the layer itself stays as it is."""

    def __init__(self, layer: KANLinear) -> None:
        self.layer = copy.deepcopy(layer).double().cpu().eval().requires_grad_(False)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.normalises = layer.functions.domain.kind == "layernorm"
        plain = tuple(Source(i) for i in range(self.in_features))
        normalised = tuple(Source(i, True) for i in range(self.in_features))
        has_base = layer.base_weight is not None
        self.sources = plain if not self.normalises else normalised + (plain if has_base else ())

    @property
    def bias(self) -> Tensor:
        """``[O]``."""
        bias = self.layer.bias
        return bias.detach() if bias is not None else torch.zeros(self.out_features, dtype=torch.float64)

    def seen(self, x: Tensor) -> Tensor:
        """The sources of inputs ``x``: ``[N, I] -> [N, S]``."""
        if not self.normalises:
            return x
        z = nn.functional.layer_norm(x, x.shape[-1:], eps=EPS)
        return z if len(self.sources) == self.in_features else torch.cat([z, x], 1)

    def edges(self, sources: Tensor) -> Tensor:
        """Every edge at ``[N, S]`` values of its own source: ``[N, O, S]``."""
        layer, n = self.layer, self.in_features
        if self.normalises:
            low, high = layer.functions.domain.interval
            argument = (low + high) / 2 + (high - low) / 4 * sources[:, :n]
        else:
            argument = layer.functions.mapped(sources)
        columns = layer.functions.basis.columns(argument, layer.functions.state)
        found: Tensor = torch.einsum("nki,oki->noi", columns, layer.weight)
        if layer.base is not None and layer.base_weight is not None:
            of_base = layer.base(sources[:, -n:]).unsqueeze(1) * layer.base_weight
            found = torch.cat([found, of_base], 2) if self.normalises else found + of_base
        return found


class Chain:
    """Layers of edges in a row; ``layers[l].edges(…)[:, o, s]`` is the edge from source s to output o of layer l."""

    def __init__(self, layers: Sequence[EdgeLayer]) -> None:
        self.layers = tuple(layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, hidden nodes by layer, outputs."""
        return (self.layers[0].in_features, *(layer.out_features for layer in self.layers))

    @property
    def n_edges(self) -> int:
        """Of all layers."""
        return sum(len(layer.sources) * layer.out_features for layer in self.layers)

    def run(
        self, x: Tensor, live: Sequence[Tensor] | None = None, means: Sequence[Tensor] | None = None
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Sources ``[N, S]``, edges ``[N, O, S]`` and outputs ``[N, O]`` of every layer.

        Args:
            x: ``[N, I]``.
            live: one truth value per edge and layer, ``[O, S]``; an edge that is not live is its mean.
            means: ``[O, S]`` per layer; needed with ``live``.
        """
        found = []
        for i, layer in enumerate(self.layers):
            sources = layer.seen(x)
            edges = layer.edges(sources)
            if live is not None and means is not None:
                edges = torch.where(live[i], edges, means[i])
            x = edges.sum(2) + layer.bias
            found.append((sources, edges, x))
        return found

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x)[-1][2]


def chain_of(layers: nn.Module | Iterable[nn.Module]) -> Chain:
    """The edges of a layer, or of layers in a row (an ``nn.Sequential``, a list).

    Raises: BadInputError if something among them is no ``KANLinear``, or the widths do not fit.
    """
    found = [layers] if isinstance(layers, KANLinear) or not isinstance(layers, Iterable) else list(layers)
    for layer in found:
        if not isinstance(layer, KANLinear):
            raise BadInputError(
                f"edges are those of KANLinear layers in a row, got {type(layer).__name__}; give only such layers"
            )
    kans = [layer for layer in found if isinstance(layer, KANLinear)]
    if not kans:
        raise BadInputError("a network to be read must have a KANLinear layer, got none; give at least one")
    for before, after in itertools.pairwise(kans):
        if before.out_features != after.in_features:
            raise BadInputError(
                f"layers in a row must fit, got {before.out_features} outputs before {after.in_features} inputs; "
                "give them in the order in which they run"
            )
    return Chain([EdgeLayer(layer) for layer in kans])

"""A trained KAN as edges: every layer is a table of functions of one variable each, summed per output.

What a layer sees are its *sources*: its inputs or, behind a layer norm, the normalised inputs, beside which the base
branch still sees the inputs themselves. Everything is computed in float64 and in eval mode.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.layers.functions import BasisFunctions
from layersearch.primitives.layers.linear import KANLinear
from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.primitives.layers.selective import SelectiveKANLinear

__all__ = ["EPS", "Chain", "EdgeLayer", "Source", "chain_of"]

Readable: TypeAlias = KANLinear | MixedKANLinear

EPS = 1e-5
"""Under the root of the layer norm, as in ``layers.domain_map``."""


@dataclass(frozen=True)
class Source:
    """Input ``index`` of a layer, as it comes or layer-normalised.

    ``basis`` is what that of its edges is called; None where they have the base branch alone.
    """

    index: int
    basis: str | None
    normalised: bool = False


@dataclass(frozen=True, eq=False)
class _Part:
    """Inputs of a layer that have one basis: its functions, their indices ``[n]``, and weights ``[O, K, n]``."""

    functions: BasisFunctions
    index: Tensor
    weight: Tensor


class EdgeLayer:
    """One layer as functions of its sources. A copy is read; the layer itself stays as it is.

    ``sources`` are what it sees; ``normalises`` says whether behind a layer norm; ``bias`` is ``[O]``.
    """

    def __init__(self, layer: Readable) -> None:
        copied = copy.deepcopy(layer).double().cpu().eval().requires_grad_(False)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        if isinstance(copied, MixedKANLinear):
            self.normalises = copied.normalize
            self._parts, self._base_weight = _of_mixed(copied)
            own = copied.selected()
        else:
            self.normalises = copied.functions.domain.kind == "layernorm"
            self._parts = [_Part(copied.functions, torch.arange(self.in_features), copied.weight)]
            self._base_weight = copied.base_weight
            own = (copied.functions.basis.name,) * self.in_features
        self._base = copied.base
        bias = copied.bias
        self.bias = bias.detach() if bias is not None else torch.zeros(self.out_features, dtype=torch.float64)
        self.sources = tuple(Source(i, own[i], self.normalises) for i in range(self.in_features))
        if self.normalises and self._base_weight is not None:
            self.sources += tuple(Source(i, None) for i in range(self.in_features))

    def seen(self, x: Tensor) -> Tensor:
        """The sources of inputs ``x``: ``[N, I] -> [N, S]``."""
        if not self.normalises:
            return x
        z = nn.functional.layer_norm(x, x.shape[-1:], eps=EPS)
        return z if len(self.sources) == self.in_features else torch.cat([z, x], 1)

    def edges(self, sources: Tensor) -> Tensor:
        """Every edge at ``[N, S]`` values of its own source: ``[N, O, S]``."""
        n = self.in_features
        found = sources.new_empty(len(sources), self.out_features, n)
        for part in self._parts:
            columns = self._columns(part.functions, sources[:, part.index])
            found[:, :, part.index] = torch.einsum("nki,oki->noi", columns, part.weight)
        if self._base is not None and self._base_weight is not None:
            of_base = self._base(sources[:, -n:]).unsqueeze(1) * self._base_weight
            found = torch.cat([found, of_base], 2) if self.normalises else found + of_base
        return found

    def _columns(self, functions: BasisFunctions, sources: Tensor) -> Tensor:
        """``[N, n] -> [N, K, n]``."""
        if self.normalises:
            low, high = functions.domain.interval
            argument = (low + high) / 2 + (high - low) / 4 * sources
        else:
            argument = functions.mapped(sources)
        return functions.basis.columns(argument, functions.state)


def _of_mixed(layer: MixedKANLinear) -> tuple[list[_Part], Tensor | None]:
    """Its bases, and the weights of the base branch ``[O, I]``, both in the order of the inputs."""
    index = torch.split(layer.order, layer.members)
    spaces = [cast(BasisFunctions, space) for space in layer.spaces]
    sizes = [space.basis.n_functions * len(own) for space, own in zip(spaces, index, strict=True)]
    *parts, rest = torch.split(layer.weight, [*sizes, layer.weight.shape[1] - sum(sizes)], 1)
    found = [
        _Part(space, own, part.reshape(layer.out_features, -1, len(own)))
        for space, own, part in zip(spaces, index, parts, strict=True)
    ]
    return found, rest[:, layer.order.argsort()] if layer.base is not None else None


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

    Raises: BadInputError if something among them is no ``KANLinear`` or ``MixedKANLinear``, or the widths do not fit.
    """
    found = [layers] if isinstance(layers, Readable) or not isinstance(layers, Iterable) else list(layers)
    for layer in found:
        if isinstance(layer, SelectiveKANLinear):
            raise BadInputError(
                "edges are read once their nodes have one basis each, got SelectiveKANLinear; give what its pruned() is"
            )
        if not isinstance(layer, Readable):
            raise BadInputError(
                f"edges are those of KANLinear or MixedKANLinear layers in a row, got {type(layer).__name__}; give "
                "only such layers"
            )
    kans = [layer for layer in found if isinstance(layer, Readable)]
    if not kans:
        raise BadInputError("a network to be read must have a KANLinear layer, got none; give at least one")
    for before, after in itertools.pairwise(kans):
        if before.out_features != after.in_features:
            raise BadInputError(
                f"layers in a row must fit, got {before.out_features} outputs before {after.in_features} inputs; "
                "give them in the order in which they run"
            )
    return Chain([EdgeLayer(layer) for layer in kans])

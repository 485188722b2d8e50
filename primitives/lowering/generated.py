"""Layers whose class is made for their graph: pickled by the graph and built anew, for there is no class to import."""

import copy
import warnings
from typing import Any, ClassVar, Self

from torch import nn

from layersearch.errors import KernelError
from layersearch.primitives.graph import Graph
from layersearch.primitives.graph_json import graph_from_json, graph_to_json
from layersearch.primitives.lowering.base import LOWERINGS

__all__ = ["GeneratedLayer", "revive"]


class GeneratedLayer(nn.Module):
    """Mixed into classes of layers; what a module holds (tensors, mode, hooks, attributes) is pickled as torch does."""

    _graph: ClassVar[Graph]
    _lowering: ClassVar[str]

    def __reduce_ex__(self, protocol: Any) -> Any:
        if "_graph" not in vars(type(self)):  # a subclass, by a parametrization or a user
            return super().__reduce_ex__(protocol)
        features, groups = vars(self)["num_features"], vars(self).get("groups", 1)
        return revive, (self._lowering, graph_to_json(self._graph), features, groups), self._state()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Of the same class: its kernels are there, whatever has become of the compiler."""
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        vars(new).update(copy.deepcopy(self._state(), memo))
        return new

    def _state(self) -> Any:
        """As torch pickles it; a parametrized module refuses that, but can be copied."""
        return nn.Module.__getstate__(self)  # type: ignore[no-untyped-call]


def revive(lowering: str, graph: Any, num_features: int, groups: int) -> nn.Module:
    """The layer of a pickle before it gets its state; by ``torch`` where kernels cannot be built, with a warning why.

    Args:
        lowering: by which it was run.
        graph: in canonical form, as ``graph_to_json`` gives it.
    """
    canonical = graph_from_json(graph, limited=False)
    try:
        return LOWERINGS[lowering].build(canonical, num_features, groups)
    except KernelError as error:
        warnings.warn(
            f"this layer is run by the torch lowering, which is slower: {error}", RuntimeWarning, stacklevel=2
        )
        return LOWERINGS["torch"].build(canonical, num_features, groups)

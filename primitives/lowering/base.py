"""The seam between a graph and the code that runs it. A new lowering is one file that adds one row."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph
from layersearch.primitives.registry import Registry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LOWERINGS", "Lowering", "available", "build_layer", "fastest", "say_once"]


@dataclass(frozen=True)
class Lowering:
    """``build(graph, num_features, groups)`` gives a module ``[N, C, H, W] -> [N, C, H, W]`` of a canonical graph.

    All lowerings of one graph have the same state dict: ``weight`` γ, ``bias`` β, the active parameters ``v…`` and one
    running moment per batch aggregate.
    """

    name: str
    build: "Callable[[Graph, int, int], nn.Module]"
    why_unavailable: Callable[[], str | None] = lambda: None
    """Why this machine cannot run it; None if it can. ``build`` then gives another lowering, and warns once."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    """Types of device that it runs on."""
    build_seconds: Callable[[Graph], float] | None = None
    """Measures the CPU time of one build on this machine, caches left aside; None if there is nothing to build."""


LOWERINGS: Registry[Lowering] = Registry("lowering", package="layersearch.primitives.lowering")


def available() -> dict[str, str | None]:
    """Every lowering by name: None if it is available on this machine, else why not."""
    return {name: row.why_unavailable() for name, row in LOWERINGS.items()}


def fastest() -> str:
    """The compiled lowering for the GPU if there is one, else for the CPU; ``torch`` where it cannot be built.

    Why it cannot is said once: tensors on a GPU would never use kernels of the CPU.
    """
    import torch

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    reasons: list[str] = []
    for name, row in LOWERINGS.items():
        if row.build_seconds is None or kind not in row.devices:
            continue
        why = row.why_unavailable()
        if why is None:
            return name
        reasons.append(why)
    say_once("; ".join(reasons))
    return "torch"


@functools.cache
def say_once(reason: str) -> None:
    """Warns that layers are run by the ``torch`` lowering."""
    warnings.warn(f"layers are run by the torch lowering, which is slower: {reason}", RuntimeWarning, stacklevel=4)


def build_layer(graph: Graph, num_features: int, *, lowering: str = "torch", groups: int | None = None) -> "nn.Module":
    """The layer ``graph(x)·γ + β`` for ``num_features`` channels.

    Args:
        graph: brought to canonical form first, which decides how running moments are named.
        num_features: C.
        lowering: name of a row of ``LOWERINGS``.
        groups: upper limit of the number of groups; by default the genome's.
    Raises: UnknownNameError for an unknown lowering.
    """
    limit = graph.numerics.groups if groups is None else groups
    return LOWERINGS[lowering].build(canonical(graph), num_features, limit)

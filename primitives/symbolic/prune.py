"""How much each edge matters to the outputs, and which can be replaced by their means at what price."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.primitives.symbolic.chain import Chain

__all__ = ["Pruned", "connected", "prune", "shares"]


def shares(chain: Chain, x: Tensor) -> list[Tensor]:
    """The share of every edge in the spread of the outputs, ``[O, S]`` per layer.

    Standard deviations over the data ``x`` ``[N, I]``, handed back from the outputs (as in KAN 2.0, arXiv:2408.10205):
    of the score A_j of a node, an edge with deviation E_ij gets B_ij = A_j E_ij / N_j, N_j being the deviation of the
    node, and A_i of the layer before is the sum of the B_ij. The scores of the outputs are their parts of the total
    deviation and sum to 1. Where edges cancel each other out, those of a layer sum to more.
    """
    runs = chain.run(x.double())
    score = runs[-1][2].std(0, correction=0)
    score = score / score.sum().clamp_min(1e-300)
    found = []
    for layer, (_, edges, outputs) in reversed(list(zip(chain.layers, runs, strict=True))):
        node = outputs.std(0, correction=0).clamp_min(1e-300)
        part = score.unsqueeze(1) * edges.std(0, correction=0) / node.unsqueeze(1)
        found.append(part)
        index = torch.tensor([source.index for source in layer.sources])
        score = torch.zeros(layer.in_features, dtype=part.dtype).index_add(0, index, part.sum(0))
    return found[::-1]


@dataclass(frozen=True, eq=False)
class Pruned:
    """``live`` says which edges are left, ``[O, S]`` per layer; ``means`` are what the others became."""

    live: tuple[Tensor, ...]
    means: tuple[Tensor, ...]

    @property
    def n_live(self) -> int:
        return sum(int(live.sum()) for live in self.live)


def prune(
    chain: Chain,
    x: Tensor,
    share: Sequence[Tensor],
    error: Callable[[Sequence[Tensor], Sequence[Tensor]], float],
    most: float,
) -> Pruned:
    """Replaces as many edges by their means as an error up to ``most`` allows, those of the smallest share first.

    The number is found by bisection, so the error is measured a few times only; edges from nodes that became constant
    and to nodes that nothing reads are dropped with them.

    Args:
        x: ``[N, I]``, whose means are taken.
        share: as ``shares`` gives it.
        error: of the network with ``live`` and ``means``.
        most: limit on ``error``.
    """
    means = tuple(edges.mean(0) for _, edges, _ in chain.run(x.double()))
    order = torch.cat([part.flatten() for part in share]).argsort(stable=True)

    def without(count: int) -> tuple[Tensor, ...]:
        flat = torch.ones(len(order), dtype=torch.bool)
        flat[order[:count]] = False
        pieces = torch.split(flat, [part.numel() for part in share])
        return connected(chain, [piece.view_as(part) for piece, part in zip(pieces, share, strict=True)])

    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if error(without(middle), means) <= most:
            low = middle
        else:
            high = middle - 1
    return Pruned(without(low), means)


def connected(chain: Chain, live: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``live`` without edges that nothing varying reaches, or from which no output is reached."""
    live = [part.clone() for part in live]
    varies = torch.ones(chain.widths[0], dtype=torch.bool)
    for layer, part in zip(chain.layers, live, strict=True):
        # Behind a layer norm every source depends on every input: it varies if any of them does.
        reached = [bool(varies.any()) if s.normalised else bool(varies[s.index]) for s in layer.sources]
        part &= torch.tensor(reached)
        varies = part.any(1)
    for i in range(len(live) - 1, 0, -1):
        layer, part = chain.layers[i], live[i]
        read = torch.zeros(layer.in_features, dtype=torch.bool)
        for s, source in enumerate(layer.sources):
            if bool(part[:, s].any()):
                read = (
                    torch.ones_like(read) if source.normalised else read.index_fill(0, torch.tensor(source.index), True)
                )
        live[i - 1] &= read.unsqueeze(1)
    return tuple(live)

"""The local activation unit of DIN: how much each past item says about the one in question."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layersearch.primitives.ctr.mlp import mlp

__all__ = ["LocalActivationUnit"]


class LocalActivationUnit(nn.Module):
    """``u = Σ_l a(q, k_l) k_l``, ``a`` a perceptron of ``[q, k, q - k, q ∘ k]``.

    Source: DIN, arXiv:1706.06978, eq. 3: the weights are *not* normalised (the published code divides by √H and takes a
    softmax; ``normalize=True`` does). The perceptron sees the items that are there, no padding: neither its output nor
    the moments of its activation depend on how long the longest history is.

    Shapes: ``query`` ``[B, d]``, ``keys`` ``[B, L, d]``, ``present`` bool ``[B, L]`` -> ``[B, d]``; 0 for an empty
    history.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int] = (80, 40), activation: str = "dice", normalize: bool = False
    ) -> None:
        super().__init__()
        self.score = mlp(4 * dim, hidden, 1, activation=activation)
        self.normalize = normalize
        self.dim = dim

    def forward(self, query: Tensor, keys: Tensor, present: Tensor) -> Tensor:
        rows, places = present.nonzero(as_tuple=True)
        if len(rows) == 0:
            return torch.zeros_like(query)
        q, k = query[rows], keys[rows, places]
        score = self.score(torch.cat([q, k, q - k, q * k], -1)).squeeze(-1)
        if self.normalize:
            weights = torch.full(present.shape, -torch.inf, dtype=score.dtype, device=score.device)
            weights = weights.index_put((rows, places), score / self.dim**0.5)
            score = torch.softmax(weights, -1)[rows, places]
        if score.device.type == "cpu":
            return torch.zeros_like(query).index_add(0, rows, score.unsqueeze(-1) * k)
        # Elsewhere by sums in a fixed order: index_add would add in the order in which threads happen to run.
        spread = torch.zeros(present.shape, dtype=score.dtype, device=score.device).index_put((rows, places), score)
        return (spread.unsqueeze(-1) * keys).sum(1)

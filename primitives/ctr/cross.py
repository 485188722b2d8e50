"""Cross layers of DCN and DCN-V2 over the embeddings of fields, with a gate on each pair of fields."""

import torch
from torch import Tensor, nn

from layersearch.primitives.ctr.interactions import pair_matrix

__all__ = ["CrossMatrix", "CrossVector"]


class CrossVector(nn.Module):
    """``x' = x₀ (wᵀ x) + b + x``; with gates, field ``i`` of ``x₀`` meets field ``j`` of ``x`` times ``g_ij``.

    Source: DCN, arXiv:1708.05123, eq. 3. A field meets itself ungated.

    Shapes: ``x0``, ``x`` ``[B, m, d]``; ``pairs`` ``[P]``, ``[B, P]`` or None.
    """

    def __init__(self, n_fields: int, dim: int) -> None:
        super().__init__()
        size = n_fields * dim
        self.weight = nn.Parameter(torch.empty(n_fields, dim).uniform_(-1, 1).mul_(size**-0.5))
        self.bias = nn.Parameter(torch.zeros(n_fields, dim))

    def forward(self, x0: Tensor, x: Tensor, pairs: Tensor | None = None) -> Tensor:
        of_fields = (x * self.weight).sum(-1)
        if pairs is None:
            met = of_fields.sum(1, keepdim=True).unsqueeze(-1)
        else:
            met = pair_matrix(pairs, x.shape[1]).matmul(of_fields.unsqueeze(-1))
        return x0 * met + self.bias + x


class CrossMatrix(nn.Module):
    """``x' = x₀ ∘ (W x + b) + x``; with gates, block ``(i, j)`` of ``W`` is multiplied by ``g_ij``.

    Source: DCN-V2, arXiv:2008.13535, eq. 1. Diagonal blocks are ungated. Gates that differ from row to row of the batch
    cost ``B m² d`` numbers.
    """

    def __init__(self, n_fields: int, dim: int) -> None:
        super().__init__()
        size = n_fields * dim
        self.weight = nn.Parameter(torch.empty(n_fields, dim, n_fields, dim).uniform_(-1, 1).mul_(size**-0.5))
        self.bias = nn.Parameter(torch.zeros(n_fields, dim))

    def forward(self, x0: Tensor, x: Tensor, pairs: Tensor | None = None) -> Tensor:
        m, d = self.bias.shape
        if pairs is not None and pairs.dim() == 2:
            met = torch.einsum("iajc,bjc,bij->bia", self.weight, x, pair_matrix(pairs, m))
        else:
            weight: Tensor = self.weight
            if pairs is not None:
                weight = weight * pair_matrix(pairs, m)[:, None, :, None]
            met = (x.flatten(1) @ weight.reshape(m * d, m * d).T).view(-1, m, d)
        return x0 * (met + self.bias) + x

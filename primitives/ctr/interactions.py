"""Products of the embeddings of two fields, with a gate on each pair."""

import torch
from torch import Tensor, nn

from layersearch.primitives.gates.base import pair_indices

__all__ = ["OPERATORS", "PairProducts", "inner_products", "pair_matrix", "second_order"]

OPERATORS = ("inner", "matrix", "weighted")
"""How two embeddings meet, see ``PairProducts``."""


def inner_products(e: Tensor, pairs: Tensor | None = None) -> Tensor:
    """``g_ij ⟨e_i, e_j⟩`` for fields ``i < j``: ``[B, m, d]`` -> ``[B, P]``; ``pairs`` is ``[P]`` or ``[B, P]``."""
    i, j = pair_indices(e.shape[1], e.device)
    products = torch.bmm(e, e.transpose(1, 2))[:, i, j]
    return products if pairs is None else products * pairs


def second_order(e: Tensor, pairs: Tensor | None = None) -> Tensor:
    """``Σ_{i<j} g_ij ⟨e_i, e_j⟩``, ``[B, m, d]`` -> ``[B]``; without gates in ``m d`` instead of ``m² d`` steps.

    Source: Rendle 2010, lemma 3.1.
    """
    if pairs is None:
        return 0.5 * (e.sum(1).square() - e.square().sum(1)).sum(-1)
    return inner_products(e, pairs).sum(-1)


def pair_matrix(pairs: Tensor, n_fields: int) -> Tensor:
    """Gates as a symmetric matrix with ones on its diagonal: ``[..., P]`` -> ``[..., m, m]``."""
    i, j = pair_indices(n_fields, pairs.device)
    upper = pairs.new_zeros(*pairs.shape[:-1], n_fields, n_fields)
    upper[..., i, j] = pairs
    return upper + upper.transpose(-1, -2) + torch.eye(n_fields, dtype=pairs.dtype, device=pairs.device)


class PairProducts(nn.Module):
    """``g_ij p(e_i, e_j)`` for fields ``i < j``: ``[B, m, d]`` -> ``[B, P]``.

    Args:
        operator: ``inner`` ``⟨e_i, e_j⟩``; ``weighted`` ``r_ij ⟨e_i, e_j⟩`` (FwFM, arXiv:1806.03514, eq. 4); ``matrix``
            ``e_iᵀ W_ij e_j`` (FmFM, arXiv:2102.12994, eq. 6). Weights start so that all are ``inner``.
        n_fields, dim: ``m`` and ``d``.
    """

    def __init__(self, operator: str, n_fields: int, dim: int) -> None:
        super().__init__()
        n_pairs = n_fields * (n_fields - 1) // 2
        self.operator = operator
        if operator == "weighted":
            self.weight = nn.Parameter(torch.ones(n_pairs))
        elif operator == "matrix":
            self.weight = nn.Parameter(torch.eye(dim).repeat(n_pairs, 1, 1))

    def forward(self, e: Tensor, pairs: Tensor | None = None) -> Tensor:
        if self.operator == "matrix":
            i, j = pair_indices(e.shape[1], e.device)
            products: Tensor = torch.einsum("bpc,pcd,bpd->bp", e[:, i], self.weight, e[:, j])
            return products if pairs is None else products * pairs
        products = inner_products(e, pairs)
        if self.operator == "weighted":
            weight: Tensor = self.weight
            products = products * weight
        return products

    def sum(self, e: Tensor, pairs: Tensor | None = None) -> Tensor:
        """``Σ_{i<j}`` of it, ``[B]``; by the short way where there is one."""
        if self.operator == "inner":
            return second_order(e, pairs)
        products: Tensor = self(e, pairs)
        return products.sum(-1)

"""Products of the embeddings of two fields, with a gate on each pair."""

import torch
from torch import Tensor

from layersearch.primitives.gates.base import pair_indices

__all__ = ["inner_products", "pair_matrix", "second_order"]


def inner_products(e: Tensor, pairs: Tensor | None = None) -> Tensor:
    """``g_ij ⟨e_i, e_j⟩`` for fields ``i < j``: ``[B, m, d]`` -> ``[B, P]``; ``pairs`` is ``[P]`` or ``[B, P]``."""
    i, j = pair_indices(e.shape[1])
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
    i, j = pair_indices(n_fields)
    upper = pairs.new_zeros(*pairs.shape[:-1], n_fields, n_fields)
    upper[..., i, j] = pairs
    return upper + upper.transpose(-1, -2) + torch.eye(n_fields, dtype=pairs.dtype, device=pairs.device)

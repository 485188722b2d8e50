"""Pairs of values gated by the product of two gates per value; first-order terms stay as they are."""

from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.gates.base import GATES, Target, pair_indices
from layersearch.primitives.gates.value import ValueGates

__all__ = ["ProductGates"]


class ProductGates(ValueGates):
    """``⟨e_k, e_l⟩ → g_k g_l ⟨e_k, e_l⟩`` for values ``k``, ``l`` of two fields: ``n`` logits for ``n²`` pairs.

    Source: OptFS, arXiv:2301.10909, eq. 8, whose gates shut a value and all its interactions together; here the value
    keeps its first-order term, so that *useful alone, useless in pairs* can be said.
    """

    name: ClassVar[str] = "product"
    title: ClassVar[str] = "products of values"
    source: ClassVar[str] = "OptFS, arXiv:2301.10909, eq. 8; first-order terms open"
    target: ClassVar[Target] = "pairs"
    per_value: ClassVar[bool] = True

    def forward(self, ids: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        gates = super().forward(ids, temperature, generator)
        i, j = pair_indices(ids.shape[1], ids.device)
        return gates[:, i] * gates[:, j]


GATES.add(ProductGates.name, ProductGates)

"""A gate per pair of fields."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.gates.base import GATES, Gates, Target, pair_indices, sizes_on

__all__ = ["PairGates"]


class PairGates(Gates):
    """``⟨e_i, e_j⟩ → g_ij ⟨e_i, e_j⟩`` for fields ``i < j``; first-order terms are not touched.

    Source: AutoFIS, arXiv:2003.11235, eq. 4, without its normalisation of interactions and its GRDA optimiser.
    """

    name: ClassVar[str] = "pair"
    title: ClassVar[str] = "pairs of fields"
    source: ClassVar[str] = "AutoFIS, arXiv:2003.11235; other relaxation"
    target: ClassVar[Target] = "pairs"
    per_value: ClassVar[bool] = False

    @classmethod
    def count(cls, sizes: Sequence[int]) -> int:
        return len(sizes) * (len(sizes) - 1) // 2

    def weights(self) -> Tensor:
        sizes = sizes_on(self.logits.device, self.sizes)
        i, j = pair_indices(len(self.sizes), self.logits.device)
        return torch.minimum(sizes[i], sizes[j])

    def forward(self, ids: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        return self.relaxation.gate(self.logits.squeeze(-1), temperature, self.noise((len(self.logits),), generator))


GATES.add(PairGates.name, PairGates)

"""A gate per value: which values of which fields a model sees."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.gates.base import GATES, Gates, Target

__all__ = ["ValueGates"]


class ValueGates(Gates):
    """``e_k → g_k e_k`` for every value ``k``; a pair of values is then gated by ``g_k g_l`` without gates of its own.

    Source: OptFS, arXiv:2301.10909, eqs. 4-7.
    """

    name: ClassVar[str] = "value"
    title: ClassVar[str] = "values"
    source: ClassVar[str] = "OptFS, arXiv:2301.10909"
    target: ClassVar[Target] = "features"
    per_value: ClassVar[bool] = True

    @classmethod
    def count(cls, sizes: Sequence[int]) -> int:
        return sum(sizes)

    def weights(self) -> Tensor:
        return torch.ones(len(self.logits), device=self.logits.device)

    def forward(self, ids: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        return self.relaxation.gate(self.rows(ids), temperature, self.noise(ids.shape, generator))


GATES.add(ValueGates.name, ValueGates)

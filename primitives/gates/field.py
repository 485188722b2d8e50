"""A gate per field."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.gates.base import GATES, Gates, Target, sizes_on

__all__ = ["FieldGates"]


class FieldGates(Gates):
    """``e_k → g_f e_k`` for every value ``k`` of field ``f``.

    Source: the granularity of AutoField, arXiv:2204.09078, learned by the relaxations here instead of its controller.
    """

    name: ClassVar[str] = "field"
    title: ClassVar[str] = "fields"
    source: ClassVar[str] = "AutoField, arXiv:2204.09078; one-level, without its controller"
    target: ClassVar[Target] = "features"
    per_value: ClassVar[bool] = False

    @classmethod
    def count(cls, sizes: Sequence[int]) -> int:
        return len(sizes)

    def weights(self) -> Tensor:
        return sizes_on(self.logits.device, self.sizes)

    def forward(self, ids: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        gates = self.relaxation.gate(self.logits.squeeze(-1), temperature, self.noise((len(self.logits),), generator))
        return gates.expand(ids.shape[0], -1)


GATES.add(FieldGates.name, FieldGates)

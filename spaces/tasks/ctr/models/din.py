"""DIN: what a user did before, weighed by the item in question."""

from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.ctr.attention_unit import LocalActivationUnit
from layersearch.primitives.ctr.mlp import mlp
from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel, ModelSettings, Row

__all__ = ["DIN"]


class DIN(CTRModel):
    """``MLP [e_f …, u, u ∘ e_target]``, ``u`` the history weighed by the local activation unit.

    Source: arXiv:1706.06978. The history is made of values of the target field and shares their rows and gates.
    ``settings.activation`` is that of both perceptrons: ``dice`` as published, ``relu`` or ``prelu`` to compare.
    """

    name: ClassVar[str] = "din"
    title: ClassVar[str] = "deep interest network"
    source: ClassVar[str] = "arXiv:1706.06978"
    has_pairs: ClassVar[bool] = False
    has_history: ClassVar[bool] = True

    def make(self, n_fields: int, settings: ModelSettings) -> None:
        self.unit = LocalActivationUnit(settings.dim, activation=settings.activation)
        self.mlp = mlp(
            (n_fields + 2) * settings.dim,
            settings.hidden,
            1,
            activation=settings.activation,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
        )

    def body(self, row: Row) -> Tensor:
        assert row.history is not None
        assert row.present is not None
        target = row.e[:, self.settings.target]
        interest = self.unit(target, row.history, row.present)
        logits: Tensor = self.mlp(torch.cat([row.e.flatten(1), interest, interest * target], -1)).squeeze(-1)
        return logits


MODELS.add(DIN.name, DIN)

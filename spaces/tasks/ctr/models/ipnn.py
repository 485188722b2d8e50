"""IPNN: a perceptron over embeddings and their inner products."""

from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.ctr.interactions import PairProducts
from layersearch.primitives.ctr.mlp import mlp
from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel, ModelSettings, Row

__all__ = ["IPNN"]


class IPNN(CTRModel):
    """``MLP [g_i e_i …, g_ij ⟨g_i e_i, g_j e_j⟩ …]``.

    Source: arXiv:1611.00144. All gates are applied in search and retraining alike; OptFS' published code searches this
    model at the first temperature and trains it again with soft gates.
    """

    name: ClassVar[str] = "ipnn"
    title: ClassVar[str] = "inner-product network"
    source: ClassVar[str] = "arXiv:1611.00144"
    has_operator: ClassVar[bool] = True

    def make(self, n_fields: int, settings: ModelSettings) -> None:
        self.products = PairProducts(settings.operator, n_fields, settings.dim)
        self.mlp = mlp(
            n_fields * settings.dim + n_fields * (n_fields - 1) // 2,
            settings.hidden,
            1,
            activation=settings.activation,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
        )

    def body(self, row: Row) -> Tensor:
        both = torch.cat([row.e.flatten(1), self.products(row.e, row.pairs)], -1)
        logits: Tensor = self.mlp(both).squeeze(-1)
        return logits


MODELS.add(IPNN.name, IPNN)

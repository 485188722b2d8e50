"""Models of cross layers beside a perceptron; they differ in the layer."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from layersearch.primitives.ctr.cross import CrossMatrix, CrossVector
from layersearch.primitives.ctr.mlp import mlp
from layersearch.spaces.tasks.ctr.models.base import CTRModel, ModelSettings, Row

__all__ = ["Crossed"]


class Crossed(CTRModel):
    """``wᵀ [cross(e), MLP(e)]``, in parallel; gates on pairs act in every cross layer."""

    cross_layer: ClassVar[type[CrossVector] | type[CrossMatrix]]

    def make(self, n_fields: int, settings: ModelSettings) -> None:
        size = n_fields * settings.dim
        self.cross = nn.ModuleList(self.cross_layer(n_fields, settings.dim) for _ in range(settings.n_cross))
        self.mlp = mlp(
            size,
            settings.hidden,
            None,
            activation=settings.activation,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
        )
        self.out = nn.Linear(size + (settings.hidden[-1] if settings.hidden else size), 1, bias=False)

    def body(self, row: Row) -> Tensor:
        crossed = row.e
        for layer in self.cross:
            crossed = layer(row.e, crossed, row.pairs)
        both = torch.cat([crossed.flatten(1), self.mlp(row.e.flatten(1))], -1)
        logits: Tensor = self.out(both).squeeze(-1)
        return logits

"""DeepFM: a factorisation machine beside a perceptron."""

from typing import ClassVar

from torch import Tensor

from layersearch.primitives.ctr.interactions import PairProducts
from layersearch.primitives.ctr.mlp import mlp
from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel, ModelSettings, Row

__all__ = ["DeepFM"]


class DeepFM(CTRModel):
    """``FM(e) + MLP(e)`` on shared embeddings; gates on pairs act on the FM part, as in AutoFIS.

    Source: arXiv:1703.04247.
    """

    name: ClassVar[str] = "deepfm"
    title: ClassVar[str] = "DeepFM"
    source: ClassVar[str] = "arXiv:1703.04247"
    has_first: ClassVar[bool] = True
    has_operator: ClassVar[bool] = True

    def make(self, n_fields: int, settings: ModelSettings) -> None:
        self.products = PairProducts(settings.operator, n_fields, settings.dim)
        self.mlp = mlp(
            n_fields * settings.dim,
            settings.hidden,
            1,
            activation=settings.activation,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
        )

    def body(self, row: Row) -> Tensor:
        assert row.first is not None
        deep: Tensor = self.mlp(row.e.flatten(1)).squeeze(-1)
        return row.first.sum(-1) + self.products.sum(row.e, row.pairs) + deep


MODELS.add(DeepFM.name, DeepFM)

"""Logistic regression."""

from typing import ClassVar

from torch import Tensor

from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel, ModelSettings, Row

__all__ = ["LR"]


class LR(CTRModel):
    """``Σ_f g_f w_f``: a weight per value; gates on values and fields."""

    name: ClassVar[str] = "lr"
    title: ClassVar[str] = "logistic regression"
    source: ClassVar[str] = "textbook"
    has_first: ClassVar[bool] = True
    has_embeddings: ClassVar[bool] = False
    has_mlp: ClassVar[bool] = False
    has_pairs: ClassVar[bool] = False

    def make(self, n_fields: int, settings: ModelSettings) -> None:
        pass

    def body(self, row: Row) -> Tensor:
        assert row.first is not None
        return row.first.sum(-1)


MODELS.add(LR.name, LR)

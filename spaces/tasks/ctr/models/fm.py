"""Factorisation machine."""

from typing import ClassVar

from torch import Tensor

from layersearch.primitives.ctr.interactions import PairProducts
from layersearch.spaces.tasks.ctr.models.base import MODELS, CTRModel, ModelSettings, Row

__all__ = ["FM"]


class FM(CTRModel):
    """``Σ_f g_f w_f + Σ_{i<j} g_ij ⟨g_i e_i, g_j e_j⟩``.

    Source: Rendle 2010. The FM of OptFS' published code has neither first-order weights nor a bias.
    """

    name: ClassVar[str] = "fm"
    title: ClassVar[str] = "factorisation machine"
    source: ClassVar[str] = "Rendle 2010"
    has_first: ClassVar[bool] = True
    has_operator: ClassVar[bool] = True
    has_mlp: ClassVar[bool] = False

    def make(self, n_fields: int, settings: ModelSettings) -> None:
        self.products = PairProducts(settings.operator, n_fields, settings.dim)

    def body(self, row: Row) -> Tensor:
        assert row.first is not None
        return row.first.sum(-1) + self.products.sum(row.e, row.pairs)


MODELS.add(FM.name, FM)

"""DCN-V2: cross layers beside a perceptron."""

from typing import ClassVar

from layersearch.primitives.ctr.cross import CrossMatrix
from layersearch.spaces.tasks.ctr.models._crossed import Crossed
from layersearch.spaces.tasks.ctr.models.base import MODELS

__all__ = ["DCNV2"]


class DCNV2(Crossed):
    """``Crossed`` with layers ``CrossMatrix``.

    Source: arXiv:2008.13535.
    """

    name: ClassVar[str] = "dcnv2"
    title: ClassVar[str] = "DCN-V2"
    source: ClassVar[str] = "arXiv:2008.13535"
    cross_layer = CrossMatrix


MODELS.add(DCNV2.name, DCNV2)

"""DCN: cross layers beside a perceptron."""

from typing import ClassVar

from layersearch.primitives.ctr.cross import CrossVector
from layersearch.spaces.tasks.ctr.models._crossed import Crossed
from layersearch.spaces.tasks.ctr.models.base import MODELS

__all__ = ["DCN"]


class DCN(Crossed):
    """``Crossed`` with layers ``CrossVector``.

    Source: arXiv:1708.05123.
    """

    name: ClassVar[str] = "dcn"
    title: ClassVar[str] = "DCN"
    source: ClassVar[str] = "arXiv:1708.05123"
    cross_layer = CrossVector


MODELS.add(DCN.name, DCN)

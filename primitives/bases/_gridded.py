"""Bases that live on an interval per input, which can be moved to the data and refined."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.basis import Basis, setting

__all__ = ["Gridded"]


@dataclass(frozen=True, kw_only=True)
class Gridded(Basis):
    """``grid`` functions or intervals from ``low`` to ``high``."""

    knob = "grid"
    has_grid = True

    grid: int = setting(8, low=2, high=512, about="number of grid points or intervals")
    low: float = setting(-1.0, about="lower end of the grid")
    high: float = setting(1.0, about="upper end of the grid")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise BadInputError(
                f"the grid of basis '{self.name}' must increase, got low={self.low:g}, high={self.high:g}; swap them"
            )

    @property
    def interval(self) -> tuple[float, float]:
        return (self.low, self.high)

    def ends(self, in_features: int, low: Tensor | None, high: Tensor | None) -> tuple[Tensor, Tensor]:
        """The ends of the grid of each input, ``[I]`` in float64; the settings where none are given."""
        full = torch.ones(in_features, dtype=torch.float64)
        start = full * self.low if low is None else low.detach().double().cpu()
        end = full * self.high if high is None else high.detach().double().cpu()
        return start, end

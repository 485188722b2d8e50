"""Piecewise linear functions on a uniform grid."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Features, Pieces
from layersearch.primitives.bases._gridded import Gridded
from layersearch.primitives.basis import BASES, State, number, setting

__all__ = ["PiecewiseLinear"]


@dataclass(frozen=True, kw_only=True)
class PiecewiseLinear(Gridded):
    """The ``G + 1`` hats on ``G`` equal intervals, the outer pieces continued as straight lines.

    So they sum to 1, and ``sum_g c_g h_g(x) = x`` for ``c`` the grid points, on the whole real line: no input is lost
    outside the grid and its gradient is never 0 there. Two are not 0 at a point. State ``low``, ``step``, each ``[I]``.
    """

    name = "piecewise_linear"
    title = "piecewise linear functions"
    source = "first-order B-splines with linear ends; ends are ours (published layers are constant or 0 there)"
    domain = "none"
    kernel = "pieces"

    grid: int = setting(8, low=1, high=512, about="number of intervals G")

    @property
    def n_functions(self) -> int:
        return self.grid + 1

    @property
    def flops(self) -> float:
        return 5.0

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        start, end = self.ends(in_features, low, high)
        return {"low": start, "step": (end - start) / self.grid}

    def span(self, state: State) -> tuple[Tensor, Tensor]:
        return state["low"], state["low"] + state["step"] * self.grid

    def _columns(self, x: Tensor, state: State) -> Tensor:
        t = (x - state["low"]) / state["step"]
        left = t.detach().floor().clamp(0, self.grid - 1)
        f = t - left
        place = left.nan_to_num().long().unsqueeze(-2) + torch.arange(2, device=x.device).unsqueeze(-1)
        zeros = (left - left).unsqueeze(-2)  # or NaN: an index can be none
        zeros = zeros.expand(*x.shape[:-1], self.n_functions, x.shape[-1])
        return zeros.scatter(-2, place, torch.stack([1 - f, f], dim=-2))

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        limits = (-math.inf, math.inf, 0.0, self.grid - 1.0)
        hats = Pieces(((1.0, -1.0), (0.0, 1.0)))
        return Features(hats, self.n_functions, self.reach, limits), [state["low"], state["step"]]

    def text(self, k: int, state: State, i: int = 0) -> str:
        t = f"(x - {number(state['low'][i])})/{number(state['step'][i])}"
        if self.grid == 1:
            return t if k else f"1 - {t}"
        if k == 0:
            return f"max(0, 1 - {t})"
        if k == self.grid:
            return f"max(0, {t} - {self.grid - 1})"
        # The neighbours of the ends continue their outer slope, below 0.
        rise = f"{t} - {k - 1}" if k == 1 else f"max(0, {t} - {k - 1})"
        over = f"max(0, {t} - {k})"
        back = "" if k == self.grid - 1 else f" + max(0, {t} - {k + 1})"
        return f"{rise} - 2*{over}{back}"

    def latex(self, k: int) -> str:
        return f"h_{{{k}}}(x)"


BASES.add(PiecewiseLinear.name, PiecewiseLinear())

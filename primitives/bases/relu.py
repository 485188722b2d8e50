"""Bumps made of two rectified lines (ReLU-KAN)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve, Features, Profiles
from layersearch.primitives.bases._gridded import Gridded
from layersearch.primitives.basis import BASES, State, number, setting

__all__ = ["ReLUBumps"]


@dataclass(frozen=True, kw_only=True)
class ReLUBumps(Gridded):
    """``[relu(e_k - x) relu(x - s_k)]² 16 / (e_k - s_k)⁴ = relu(4u(1-u))²``, ``u = (x - s_k) / (e_k - s_k)``.

    ``G + k`` bumps of height 1, each over ``k + 1`` steps of the grid, as B-splines lie. State ``start`` and
    ``log_width`` (of e - s, which therefore stays positive), each ``[G + k, I]``, are trained.
    """

    name = "relu"
    title = "ReLU bumps"
    source = "ReLU-KAN, arXiv:2406.02075; evaluated in u, which has no fourth powers of the width"

    kernel = "profiles"

    grid: int = setting(5, low=1, high=512, about="number of steps G")
    order: int = setting(3, low=1, high=16, about="overlap k")
    learn: bool = setting(True, about="train the ends of the bumps")

    @property
    def learned(self) -> tuple[str, ...]:
        return ("start", "log_width") if self.learn else ()

    @property
    def n_functions(self) -> int:
        return self.grid + self.order

    @property
    def flops(self) -> float:
        return 7.0 * self.n_functions

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        first, last = self.ends(in_features, low, high)
        step = (last - first) / self.grid
        at = torch.arange(-self.order, self.grid, dtype=torch.float64).unsqueeze(-1)
        width = torch.log(step * (self.order + 1))
        return {"start": first + step * at, "log_width": width.expand(self.n_functions, in_features).clone()}

    def span(self, state: State) -> tuple[Tensor, Tensor]:
        # ends of the grid from the first and the last bump: each reaches k steps past its side
        overlap = self.order / (self.order + 1)
        width = state["log_width"].exp()
        return state["start"][0] + overlap * width[0], state["start"][-1] + (1 - overlap) * width[-1]

    def _columns(self, x: Tensor, state: State) -> Tensor:
        u = (x.unsqueeze(-2) - state["start"]) * torch.exp(-state["log_width"])
        bump = torch.relu(4 * u * (1 - u))
        return bump * bump

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        lines = ("b = maximum(0, 4 * z * (1 - z))", "y = b * b", "slope = 8 * b * (1 - 2 * z)")
        return Features(Profiles(Curve(lines)), self.n_functions, self.reach), [
            state["start"],
            torch.exp(-state["log_width"]),
        ]

    def text(self, k: int, state: State, i: int = 0) -> str:
        u = f"((x - {number(state['start'][k, i])})/{number(state['log_width'][k, i].exp())})"
        return f"max(0, 4*{u}*(1 - {u}))**2"

    def latex(self, k: int) -> str:
        bump = rf"\mathrm{{ReLU}}(e_{{{k}}}-x)\,\mathrm{{ReLU}}(x-s_{{{k}}})"
        return rf"\frac{{16\left[{bump}\right]^2}}{{(e_{{{k}}}-s_{{{k}}})^4}}"


BASES.add(ReLUBumps.name, ReLUBumps())

"""Sines of learned frequency."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve, Features, Profiles
from layersearch.primitives.basis import BASES, Basis, State, number, setting

__all__ = ["Sine"]


@dataclass(frozen=True, kw_only=True)
class Sine(Basis):
    """``sin(ω_k x + φ_{ki})``, k = 1 … G; at most 1.

    State ``frequency`` ``[G, 1]``, shared by all inputs and trained, starts at 1 … G; ``phase`` ``[G, I]`` is fixed,
    spread evenly over half a turn by input and, more finely, by function, so that no input sees only odd functions.
    """

    name = "sine"
    title = "sines of learned frequency"
    source = "SineKAN, arXiv:2407.04149; the grid of phases is ours"
    knob = "grid"
    domain = "none"
    kernel = "profiles"

    grid: int = setting(5, low=1, high=128, about="number of sines G")
    learn: bool = setting(True, about="train the frequencies")

    @property
    def learned(self) -> tuple[str, ...]:
        return ("frequency",) if self.learn else ()

    @property
    def n_functions(self) -> int:
        return self.grid

    @property
    def flops(self) -> float:
        return 12.0 * self.grid

    @property
    def interval(self) -> tuple[float, float]:
        return (-math.pi, math.pi)

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        function = torch.arange(self.grid, dtype=torch.float64).unsqueeze(-1)
        turn = torch.arange(in_features, dtype=torch.float64) / in_features + (function + 0.5) / self.grid
        return {"frequency": function + 1, "phase": math.pi * (turn % 1)}

    def _columns(self, x: Tensor, state: State) -> Tensor:
        return torch.sin(state["frequency"] * x.unsqueeze(-2) + state["phase"])

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        sine = Profiles(Curve(("y = sin(z)", "slope = cos(z)")), shifted=True)
        frequency = state["frequency"].expand_as(state["phase"])
        return Features(sine, self.n_functions, self.reach), [state["phase"], frequency]

    def text(self, k: int, state: State, i: int = 0) -> str:
        return f"sin({number(state['frequency'][k, 0])}*x + {number(state['phase'][k, i])})"

    def latex(self, k: int) -> str:
        return rf"\sin(\omega_{{{k}}}x+\varphi_{{{k}}})"


BASES.add(Sine.name, Sine())

"""Reflectional switch activation functions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._centred import Centred
from layersearch.primitives.basis import BASES, setting

__all__ = ["RSWAF"]


@dataclass(frozen=True, kw_only=True)
class RSWAF(Centred):
    """``1 - tanh²((x - c_k) / s)``; all positive, at most 1, 0 far outside the centres."""

    name = "rswaf"
    title = "reflectional switch activation functions"
    source = (
        "FasterKAN (github.com/AthanasiosDelis/faster-kan): 8 centres on [-1.2, 0.2], and a width that its forward "
        "pass ignores; ours are centred on 0 and the width counts in both passes"
    )

    width: float = setting(1.5, low=0.05, high=20, about="width in distances between centres")

    @property
    def flops(self) -> float:
        return 14.0 * self.grid

    @property
    def curve(self) -> Curve:
        return Curve(("t = tanh(z)", "y = 1 - t * t", "slope = -2 * t * y"))

    def profile(self, z: Tensor) -> Tensor:
        t = torch.tanh(z)
        return 1 - t * t

    def profile_text(self, z: str) -> str:
        return f"1 - tanh({z})**2"

    def latex(self, k: int) -> str:
        return rf"1-\tanh^2\left((x-c_{{{k}}})/s\right)"


BASES.add(RSWAF.name, RSWAF())

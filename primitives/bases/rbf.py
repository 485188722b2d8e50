"""Gaussian radial basis functions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._centred import Centred
from layersearch.primitives.basis import BASES

__all__ = ["GaussianRBF"]


@dataclass(frozen=True, kw_only=True)
class GaussianRBF(Centred):
    """``exp(-((x - c_k) / s)²)``; all positive, at most 1, 0 far outside the centres."""

    name = "rbf"
    title = "Gaussian radial basis functions"
    source = (
        "FastKAN, arXiv:2405.06721: 8 centres on [-2, 2], s their distance. Its layer norm is one choice of the layer "
        "here, not the default, since it maps a single input to 0"
    )

    @property
    def flops(self) -> float:
        return 14.0 * self.grid

    @property
    def curve(self) -> Curve:
        return Curve(("y = exp(-z * z)", "slope = -2 * z * y"))

    def profile(self, z: Tensor) -> Tensor:
        return torch.exp(-z * z)

    def profile_text(self, z: str) -> str:
        return f"exp(-{z}**2)"

    def latex(self, k: int) -> str:
        return rf"e^{{-\left((x-c_{{{k}}})/s\right)^2}}"


BASES.add(GaussianRBF.name, GaussianRBF())

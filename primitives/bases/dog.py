"""Derivative-of-Gaussian wavelets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._centred import Wavelet
from layersearch.primitives.basis import BASES

__all__ = ["DOG"]


@dataclass(frozen=True, kw_only=True)
class DOG(Wavelet):
    """``ψ(z) = -z exp(-z²/2)``, the derivative of a Gaussian; mean 0."""

    name = "dog"
    title = "derivative-of-Gaussian wavelets"
    source = "Wav-KAN, arXiv:2405.12832"

    @property
    def flops(self) -> float:
        return 15.0 * self.grid

    @property
    def curve(self) -> Curve:
        return Curve(("e = exp(-0.5 * z * z)", "y = -z * e", "slope = (z * z - 1) * e"))

    def profile(self, z: Tensor) -> Tensor:
        return -z * torch.exp(-0.5 * z * z)

    def profile_text(self, z: str) -> str:
        return f"-{z}*exp(-{z}**2/2)"


BASES.add(DOG.name, DOG())

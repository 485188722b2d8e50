"""Mexican hat (Ricker) wavelets."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._centred import Wavelet
from layersearch.primitives.basis import BASES, number

__all__ = ["MexicanHat"]

SCALE = 2 / (math.sqrt(3) * math.pi**0.25)


@dataclass(frozen=True, kw_only=True)
class MexicanHat(Wavelet):
    """``ψ(z) = 2 / (sqrt(3) π^{1/4}) (1 - z²) exp(-z²/2)``; mean 0, norm 1."""

    name = "mexican_hat"
    title = "Mexican hat wavelets"
    source = "Wav-KAN, arXiv:2405.12832, whose code has the opposite sign"

    @property
    def flops(self) -> float:
        return 17.0 * self.grid

    @property
    def curve(self) -> Curve:
        return Curve((f"e = {SCALE} * exp(-0.5 * z * z)", "y = (1 - z * z) * e", "slope = z * (z * z - 3) * e"))

    def profile(self, z: Tensor) -> Tensor:
        square = z * z
        y: Tensor = SCALE * (1 - square) * torch.exp(-0.5 * square)
        return y

    def profile_text(self, z: str) -> str:
        return f"{number(SCALE)}*(1 - {z}**2)*exp(-{z}**2/2)"


BASES.add(MexicanHat.name, MexicanHat())

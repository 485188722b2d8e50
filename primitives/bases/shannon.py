"""Shannon wavelets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._centred import Wavelet
from layersearch.primitives.basis import BASES

__all__ = ["Shannon"]


@dataclass(frozen=True, kw_only=True)
class Shannon(Wavelet):
    """``ψ(z) = 2 sinc(2z) - sinc(z)``, sinc(z) = sin(πz) / (πz); its integer shifts are orthonormal. Decays as 1/z."""

    name = "shannon"
    title = "Shannon wavelets"
    source = (
        "Mallat, A Wavelet Tour of Signal Processing, 7.2; Wav-KAN, arXiv:2405.12832, takes a windowed sinc instead"
    )

    @property
    def flops(self) -> float:
        return 30.0 * self.grid

    @property
    def curve(self) -> Curve:
        return Curve(("y = 2 * sinc(2 * z) - sinc(z)", "slope = 4 * sinc_slope(2 * z) - sinc_slope(z)"))

    def profile(self, z: Tensor) -> Tensor:
        return 2 * torch.sinc(2 * z) - torch.sinc(z)

    def profile_text(self, z: str) -> str:
        return f"2*sinc(2*{z}) - sinc({z})"


BASES.add(Shannon.name, Shannon())

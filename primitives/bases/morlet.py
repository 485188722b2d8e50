"""Morlet wavelets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._centred import Wavelet
from layersearch.primitives.basis import BASES, number, setting

__all__ = ["Morlet"]


@dataclass(frozen=True, kw_only=True)
class Morlet(Wavelet):
    """``ψ(z) = cos(ω z) exp(-z²/2)`` with ω = 5, for which the mean is 0 to 1e-5."""

    name = "morlet"
    title = "Morlet wavelets"
    source = "Wav-KAN, arXiv:2405.12832"

    width: float = setting(2.0, low=0.05, high=20, about="width in distances between centres")
    omega: float = setting(5.0, low=0.5, high=20, about="central frequency ω")

    @property
    def flops(self) -> float:
        return 25.0 * self.grid

    @property
    def curve(self) -> Curve:
        return Curve(
            (
                f"a = {self.omega} * z",
                "e = exp(-0.5 * z * z)",
                "y = cos(a) * e",
                f"slope = -{self.omega} * sin(a) * e - z * y",
            )
        )

    def profile(self, z: Tensor) -> Tensor:
        return torch.cos(self.omega * z) * torch.exp(-0.5 * z * z)

    def profile_text(self, z: str) -> str:
        return f"cos({number(self.omega)}*{z})*exp(-{z}**2/2)"


BASES.add(Morlet.name, Morlet())

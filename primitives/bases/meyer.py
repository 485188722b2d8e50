"""Meyer wavelets."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve
from layersearch.primitives.bases._centred import Wavelet
from layersearch.primitives.basis import BASES, setting

__all__ = ["Meyer"]


@dataclass(frozen=True, kw_only=True)
class Meyer(Wavelet):
    """``ψ(z) = sin(π z) cos(π/2 ν(2|z| - 1))`` for |z| <= 1, else 0; ν Meyer's step, 0 below 0 and 1 above 1.

    ``ν(t) = t⁴ (35 - 84 t + 70 t² - 20 t³)``. Odd, so its mean is 0; three times differentiable.
    """

    name = "meyer"
    title = "Meyer wavelets"
    source = (
        "Wav-KAN, arXiv:2405.12832, which takes Meyer's frequency window as a function of z, with sin(π|z|); sin(πz) "
        "here has no kink at 0"
    )

    width: float = setting(2.0, low=0.05, high=20, about="width in distances between centres")

    @property
    def flops(self) -> float:
        return 38.0 * self.grid

    @property
    def curve(self) -> Curve:
        return Curve(
            (
                "s = maximum(-1, -maximum(-1, -z))",
                "t = maximum(0, 2 * abs(s) - 1)",
                f"n = {math.pi / 2} * (t * t * t * t * (35 + t * (-84 + t * (70 - 20 * t))))",
                f"d = {math.pi} * t * t * t * (140 + t * (-420 + t * (420 - 140 * t))) * sign(s)",
                f"a = {math.pi} * s",
                "y = sin(a) * cos(n)",
                f"slope = {math.pi} * cos(a) * cos(n) - sin(a) * sin(n) * d",
            )
        )

    def profile(self, z: Tensor) -> Tensor:
        inside = z.clamp(-1, 1)
        t = (2 * inside.abs() - 1).clamp_min(0)
        t2 = t * t
        step = t2 * t2 * (35 + t * (-84 + t * (70 - 20 * t)))
        return torch.sin(math.pi * inside) * torch.cos(math.pi / 2 * step)

    def profile_text(self, z: str) -> str:
        t = f"max(0, min(1, 2*abs({z}) - 1))"
        step = f"{t}**4*(35 - 84*{t} + 70*{t}**2 - 20*{t}**3)"
        return f"sin(pi*max(-1, min(1, {z})))*cos(pi/2*{step})"


BASES.add(Meyer.name, Meyer())

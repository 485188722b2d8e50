"""Fourier series."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Features, Harmonics
from layersearch.primitives.basis import BASES, Basis, State, number, setting

__all__ = ["Fourier"]


@dataclass(frozen=True, kw_only=True)
class Fourier(Basis):
    """``cos(mωx)``, m = 1 … G, then ``sin(mωx)``, m = 1 … G; orthogonal over a period, at most 1.

    One cosine and one sine per input; the others by rotation, ``c_{m+1} = c_m c_1 - s_m s_1``, which is within 1e-5
    of the exact values in float32 up to G = 64.
    """

    name = "fourier"
    title = "Fourier series"
    source = "as a KAN: github.com/GistNoesis/FourierKAN, which evaluates 2G transcendentals for every edge"
    knob = "grid"
    domain = "none"
    kernel = "harmonics"

    grid: int = setting(5, low=1, high=128, about="number of harmonics G")
    frequency: float = setting(1.0, low=0.01, high=100, about="base frequency ω")

    @property
    def n_functions(self) -> int:
        return 2 * self.grid

    @property
    def flops(self) -> float:
        return 21.0 + 6 * (self.grid - 1)

    @property
    def interval(self) -> tuple[float, float]:
        return (-math.pi / self.frequency, math.pi / self.frequency)

    def _columns(self, x: Tensor, state: State) -> Tensor:
        angle = x if self.frequency == 1 else self.frequency * x
        c1, s1 = torch.cos(angle), torch.sin(angle)
        cosines, sines = [c1], [s1]
        for _ in range(1, self.grid):
            c, s = cosines[-1], sines[-1]
            cosines.append(c * c1 - s * s1)
            sines.append(s * c1 + c * s1)
        return torch.stack(cosines + sines, dim=-2)

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        return Features(Harmonics(), self.n_functions, self.reach, (self.frequency,)), []

    def text(self, k: int, state: State, i: int = 0) -> str:
        name, m = ("cos", k + 1) if k < self.grid else ("sin", k - self.grid + 1)
        return f"{name}({number(m * self.frequency)}*x)"

    def latex(self, k: int) -> str:
        name, m = ("cos", k + 1) if k < self.grid else ("sin", k - self.grid + 1)
        return rf"\{name}({number(m * self.frequency)}x)"


BASES.add(Fourier.name, Fourier())

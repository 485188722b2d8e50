"""One profile, moved to centres and stretched by widths."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Curve, Features, Profiles
from layersearch.primitives.bases._gridded import Gridded
from layersearch.primitives.basis import State, number, setting, spread

__all__ = ["Centred", "Wavelet"]


@dataclass(frozen=True, kw_only=True)
class Centred(Gridded):
    """``f_k(x) = ψ((x - c_k) / s_k)`` with ``G`` centres evenly from ``low`` to ``high``.

    State ``centres`` and ``log_width``, each ``[G, I]``; widths start at ``width`` times the distance of the centres.
    """

    low: float = setting(-2.0, about="first centre")
    high: float = setting(2.0, about="last centre")
    width: float = setting(1.0, low=0.05, high=20, about="width in distances between centres")
    learn: bool = setting(False, about="train centres and widths")

    @property
    def learned(self) -> tuple[str, ...]:
        return ("centres", "log_width") if self.learn else ()

    @property
    def n_functions(self) -> int:
        return self.grid

    kernel = "profiles"

    @property
    @abstractmethod
    def curve(self) -> Curve:
        """ψ and its slope for kernels."""

    @abstractmethod
    def profile(self, z: Tensor) -> Tensor:
        """ψ, elementwise; finite with finite gradient for every finite ``z``."""

    @abstractmethod
    def profile_text(self, z: str) -> str:
        """ψ of the bracketed expression ``z``."""

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        start, end = self.ends(in_features, low, high)
        width = (end - start) * (self.width / (self.grid - 1))
        return {
            "centres": spread(start, end, self.grid),
            "log_width": torch.log(width).expand(self.grid, in_features).clone(),
        }

    def span(self, state: State) -> tuple[Tensor, Tensor]:
        return state["centres"].amin(0), state["centres"].amax(0)

    def _columns(self, x: Tensor, state: State) -> Tensor:
        return self.profile((x.unsqueeze(-2) - state["centres"]) * torch.exp(-state["log_width"]))

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        features = Features(Profiles(self.curve), self.n_functions, self.reach)
        return features, [state["centres"], torch.exp(-state["log_width"])]

    def text(self, k: int, state: State, i: int = 0) -> str:
        width = state["log_width"][k, i].exp()
        return self.profile_text(f"((x - {number(state['centres'][k, i])})/{number(width)})")

    def latex(self, k: int) -> str:
        z = rf"\left(\frac{{x-c_{{{k}}}}}{{s_{{{k}}}}}\right)"
        return rf"\psi{z}"


@dataclass(frozen=True, kw_only=True)
class Wavelet(Centred):
    """A mother wavelet with a centre and a width per input and function, both trained.

    Published layers have one wavelet with a centre and width per *edge*, which no matrix product can evaluate; ours
    has ``G`` per input, started at different centres, and mixes them linearly. Unlike Wav-KAN's, no batch norm follows.
    There is no grid to refine: a wavelet holds one band of frequencies, and narrower ones another.
    """

    has_grid = False

    learn: bool = setting(True, about="train centres and widths")

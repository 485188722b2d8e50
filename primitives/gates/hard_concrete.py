"""Hard-concrete gates: a stretched and clipped concrete variable, which is exactly 0 or 1 with some probability."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.gates.base import RELAXATIONS, Relaxation

__all__ = ["HardConcrete"]

LOW, HIGH = -0.1, 1.1  # γ and ζ of the source


@dataclass(frozen=True, kw_only=True)
class HardConcrete(Relaxation):
    """``g = clip(σ(τ (m + logit u)) (ζ - γ) + γ, 0, 1)``, ``γ = -0.1``, ``ζ = 1.1``.

    Source: Louizos, Welling and Kingma 2018, arXiv:1712.01312, eqs. 10-12, with ``τ = 1/β``. The price is the
    probability that a gate is not 0, ``σ(m - log(-γ/ζ)/τ)``. Deviation: the selection is the limit of the gate without
    noise, ``m > 0``, not the source's ``σ(m) > -γ/(ζ - γ)``, which opens gates that are mostly shut in training.
    """

    name: ClassVar[str] = "hard_concrete"
    title: ClassVar[str] = "hard-concrete draws"
    source: ClassVar[str] = "arXiv:1712.01312, eqs. 10-12"
    is_random: ClassVar[bool] = True

    start: float = 2.0
    first: float = 1.5  # β = 2/3, as in the source
    last: float = 100.0

    def _soft(self, logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
        moved = logits if uniform is None else logits + torch.logit(uniform)
        return (torch.sigmoid(temperature * moved) * (HIGH - LOW) + LOW).clamp(0, 1)

    def price(self, logits: Tensor, temperature: float) -> Tensor:
        return (
            self.hard(logits)
            if math.isinf(temperature)
            else torch.sigmoid(logits - math.log(-LOW / HIGH) / temperature)
        )

    def largest(self, temperature: float) -> float:
        return 1.0


RELAXATIONS.add(HardConcrete.name, HardConcrete)

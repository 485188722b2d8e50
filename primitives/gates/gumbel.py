"""Gumbel (binary concrete) gates."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.gates.base import RELAXATIONS, Relaxation

__all__ = ["Gumbel"]


@dataclass(frozen=True, kw_only=True)
class Gumbel(Relaxation):
    """``g = σ(τ (m + logit u))``: the softmax over two Gumbel variables, *open* against *shut*.

    Source: Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712, with ``τ`` the inverse of their
    temperature. The price is the probability of *open*, ``σ(m)``; the selection is the likelier of the two, ``m > 0``.
    """

    name: ClassVar[str] = "gumbel"
    title: ClassVar[str] = "Gumbel draws"
    source: ClassVar[str] = "arXiv:1611.01144, arXiv:1611.00712"
    is_random: ClassVar[bool] = True

    start: float = 2.0
    first: float = 1.0
    last: float = 100.0

    def _soft(self, logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
        moved = logits if uniform is None else logits + torch.logit(uniform)
        return torch.sigmoid(temperature * moved)

    def price(self, logits: Tensor, temperature: float) -> Tensor:
        return self.hard(logits) if math.isinf(temperature) else torch.sigmoid(logits)

    def largest(self, temperature: float) -> float:
        return 1.0


RELAXATIONS.add(Gumbel.name, Gumbel)

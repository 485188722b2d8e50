"""Gates by continuation: a sigmoid that becomes a step."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from layersearch.primitives.gates.base import RELAXATIONS, Relaxation

__all__ = ["Continuation"]


@dataclass(frozen=True, kw_only=True)
class Continuation(Relaxation):
    """``g = σ(τ m) / σ(τ m⁰)``.

    Source: OptFS, arXiv:2301.10909, which divides by ``σ(m⁰)``: its gates tend to ``1/σ(m⁰)`` = 1.607 and its kept
    embeddings jump by that factor when gates are cut. With ``τ`` in the denominator, too, a fresh gate is exactly 1 at
    every temperature and an open one tends to 1. The price is the gate itself (an L1 norm).
    """

    name: ClassVar[str] = "continuation"
    title: ClassVar[str] = "sigmoid with rising temperature"
    source: ClassVar[str] = "OptFS, arXiv:2301.10909; denominator with the temperature"

    def _soft(self, logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
        return torch.sigmoid(temperature * logits) * self.largest(temperature)

    def price(self, logits: Tensor, temperature: float) -> Tensor:
        return self.gate(logits, temperature)

    def largest(self, temperature: float) -> float:
        return 1 + math.exp(-temperature * self.start)


RELAXATIONS.add(Continuation.name, Continuation)

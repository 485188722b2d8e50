"""What a gate is: how it is relaxed while it is learned, what it opens or shuts, and what both must agree on.

A gate is a number per *value*, *field* or *pair of fields*, made of a learned logit ``m``. While the weights are
trained it is soft, at a temperature ``τ`` that rises with every batch; at ``τ = ∞`` it is exactly 0 or 1, and 1 where
``m > 0``. That limit, nothing else, is the selection. There is no state beside the logits: the temperature comes with
each call.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.kernels.transfer import sent
from layersearch.primitives.ctr.lookup import gated_lookup
from layersearch.primitives.registry import Registry

__all__ = ["GATES", "HARD", "RELAXATIONS", "Gates", "Relaxation", "Target", "pair_indices", "sizes_on"]

HARD = math.inf
"""The temperature at which gates are their limit, 0 or 1."""

Target: TypeAlias = Literal["features", "pairs"]


def pair_indices(n_fields: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Fields ``i < j`` of each of the ``P = n(n - 1)/2`` pairs, two tensors ``[P]``: (0, 1), (0, 2), …, (1, 2), …"""
    i, j = torch.triu_indices(n_fields, n_fields, offset=1, device=device)
    return i, j


@functools.lru_cache(maxsize=64)
def sizes_on(device: torch.device, sizes: tuple[int, ...]) -> Tensor:
    """Ids per field, float32 ``[m]``; kept, as a copy to a device has to be waited for."""
    return torch.tensor(sizes, dtype=torch.float32).to(device)


@dataclass(frozen=True, kw_only=True)
class Relaxation(ABC):
    """How a logit becomes a gate between 0 and 1 that gradients pass.

    Class attributes, the fixed part of a row:
        name: key in ``RELAXATIONS``.
        title: what users read.
        source: paper and equation, and where we deviate.
        is_random: whether a gate is drawn anew at each use while it is learned.

    Args:
        start: logit of a fresh gate, above 0: every gate begins open.
        first, last: temperature at the first and at the last batch.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    is_random: ClassVar[bool] = False

    start: float = 0.5
    first: float = 1.0
    last: float = 1000.0

    def __post_init__(self) -> None:
        if not 0 < self.start < math.inf:
            raise BadInputError(f"start of gates '{self.name}' must be a number above 0, got {self.start}; use 0.5")
        if not 0 < self.first <= self.last < math.inf:
            raise BadInputError(
                f"temperatures of gates '{self.name}' must satisfy 0 < first <= last, got {self.first} and "
                f"{self.last}; use 1 and 1000"
            )

    def temperature(self, step: int, steps: int) -> float:
        """``first · (last/first)^(step/(steps - 1))`` for ``step`` 0 … steps - 1: it moves with every batch.

        Raises: BadInputError unless 0 <= step < steps and steps >= 2.
        """
        if steps < 2 or not 0 <= step < steps:
            raise BadInputError(
                f"gates must be learned for at least 2 batches and step be below their number, got step {step} of "
                f"{steps}; search longer"
            )
        return self.first * math.pow(self.last / self.first, step / (steps - 1))

    @abstractmethod
    def _soft(self, logits: Tensor, temperature: float, uniform: Tensor | None) -> Tensor:
        """The gate at a finite temperature; noise-free if ``uniform`` is None."""

    @abstractmethod
    def price(self, logits: Tensor, temperature: float) -> Tensor:
        """What an open gate counts in the penalty, differentiable; its limit is that of the gate."""

    @abstractmethod
    def largest(self, temperature: float) -> float:
        """The least upper bound of a gate at ``temperature``; its limit is 1."""

    def gate(self, logits: Tensor, temperature: float, uniform: Tensor | None = None) -> Tensor:
        """Gates of ``logits``, same shape and dtype.

        Args:
            temperature: above 0; ``HARD`` gives the limit, without a gradient.
            uniform: numbers in (0, 1), shape of ``logits``, for relaxations that draw; None for the gate without noise.
        """
        if temperature == HARD:
            return self.hard(logits)
        return self._soft(logits, temperature, uniform if self.is_random else None)

    @staticmethod
    def hard(logits: Tensor) -> Tensor:
        """1 where the logit is above 0, else 0: the limit of ``gate`` for ``τ → ∞``."""
        return (logits.detach() > 0).to(logits.dtype)

    def noise(self, shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Uniform numbers within (0, 1) beside ``like``, if this relaxation draws and a generator is given.

        They are drawn where the generator is: one of the CPU gives the same ones for every device.
        """
        if not self.is_random or generator is None:
            return None
        eps = torch.finfo(like.dtype).eps
        drawn = torch.rand(tuple(shape), generator=generator, dtype=like.dtype, device=generator.device)
        if drawn.device.type == "cpu":
            drawn = sent(drawn, like.device)
        return drawn.clamp(eps, 1 - eps)


class Gates(nn.Module, ABC):
    """Gates of one kind over the fields of a data set.

    Class attributes, the fixed part of a row:
        name: key in ``GATES``.
        title: what users read.
        source: paper, and where we deviate.
        target: what is multiplied: the embeddings of features, or the interactions of pairs.
        per_value: whether there is a logit per value of the vocabulary (then gradients are sparse rows).

    Args:
        sizes: ``m`` numbers of ids per field, the id of unknown values included; ``n`` in all.
        relaxation: how gates are learned.
        sparse: give gradients of logits per value as sparse rows, for ``RowAdam``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    target: ClassVar[Target]
    per_value: ClassVar[bool]

    def __init__(
        self,
        sizes: Sequence[int],
        relaxation: Relaxation,
        *,
        sparse: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise BadInputError(
                f"gates need at least 2 fields of at least 1 id, got sizes {list(sizes)[:5]}; add fields"
            )
        self.sizes = tuple(sizes)
        self.relaxation = relaxation
        self.sparse = sparse and self.per_value
        self.logits = nn.Parameter(torch.full((self.count(self.sizes), 1), relaxation.start, dtype=dtype))

    @classmethod
    @abstractmethod
    def count(cls, sizes: Sequence[int]) -> int:
        """Number of gates."""

    @abstractmethod
    def weights(self) -> Tensor:
        """How many values each gate lets through, ``[gates]``: what its price is multiplied by."""

    @abstractmethod
    def forward(self, ids: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """Gates for a batch.

        Args:
            ids: int64 ``[B, m]``, ids counted over all fields (offset of the field added).
            temperature: see ``Relaxation.gate``.
            generator: of the noise; None for none.
        Returns: ``[B, m]`` for target ``features``; ``[P]`` or ``[B, P]`` for ``pairs``.
        """

    def price(self, ids: Tensor, temperature: float, counts: Tensor, n_rows: int, growth: float = 0.0) -> Tensor:
        """``(1/N) Σ_k weight_k · price(m_k)``, or an unbiased estimate of it that reads the rows of the batch alone.

        Multiplied by a price in nats it can be added to a mean log loss: a gate is then worth that many nats of the log
        loss summed over the ``N`` training rows, whatever the size of data and vocabulary.

        Args:
            ids: ``[B, m]``.
            counts: ``[n]``, occurrences of each id in the training rows.
            n_rows: ``N``.
            growth: ``γ`` in [0, 1]: for gates per value, ``weight_k = (count_k / 100)^γ``, so that the price is that of
                a value that occurs 100 times. What a useless value gains by fitting noise does not depend on its count
                ``c``, what a useful one gains grows with ``c``; a price that grows with ``√c`` stays between the two.
        """
        if not self.per_value:
            prices = self.relaxation.price(self.logits.squeeze(-1), temperature)
            return (prices * self.weights().to(prices)).sum() / n_rows
        # An id occurs in a batch B·count/N times on average, so 1/count per occurrence sums to B/N per id.
        prices = self.relaxation.price(self.rows(ids), temperature)
        times = counts[ids].clamp_min(1).to(prices)
        scale = 1 / (ids.shape[0] * math.pow(100.0, growth))
        return (prices * torch.pow(times, growth - 1)).sum() * scale

    def rows(self, ids: Tensor) -> Tensor:
        """Logits of ``ids``, same shape; sparse gradient if asked for."""
        if self.sparse:
            return gated_lookup(self.logits, ids).squeeze(-1)
        return nn.functional.embedding(ids, self.logits).squeeze(-1)

    def noise(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor | None:
        return self.relaxation.noise(shape, self.logits, generator)

    @torch.no_grad()
    def selected(self) -> Tensor:
        """Gates that are open in the limit, bool ``[gates]``."""
        return self.logits.squeeze(-1) > 0

    def kept_ratio(self) -> float:
        """Share of open gates, of the selection (not of what is open at some temperature)."""
        return float(self.selected().double().mean())

    @torch.no_grad()
    def keep(self, ratio: float) -> None:
        """Moves the zero of the logits so that exactly ``round(ratio · gates)``, those of the largest, are open.

        Of equal logits the first ones stay open. Raises: BadInputError unless 0 < ratio <= 1.
        """
        if not 0 < ratio <= 1:
            raise BadInputError(f"a kept ratio must be in (0, 1], got {ratio}; use for example 0.2")
        values = self.logits.squeeze(-1)
        n_kept = round(ratio * len(values))
        order = torch.argsort(values, descending=True, stable=True)
        if n_kept in (0, len(values)):
            zero = values.max() + 1 if n_kept == 0 else values.min() - 1
        else:
            last, first = values[order[n_kept - 1 : n_kept + 1]].unbind()
            zero = (last + first) / 2
        least = torch.finfo(values.dtype).eps
        values -= zero
        values[order[:n_kept]] = values[order[:n_kept]].clamp_min(least)
        values[order[n_kept:]] = values[order[n_kept:]].clamp_max(-least)


RELAXATIONS: Registry[type[Relaxation]] = Registry("relaxation", package="layersearch.primitives.gates")
"""How gates are learned, one file each in ``primitives/gates``."""

GATES: Registry[type[Gates]] = Registry("gates", package="layersearch.primitives.gates")
"""What gates open and shut, one file each in ``primitives/gates``."""

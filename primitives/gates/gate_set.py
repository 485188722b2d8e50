"""Several kinds of gates at once, as one module beside the model they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.gates.base import GATES, HARD, Gates, Relaxation

__all__ = ["OPEN", "GateSet", "Gated", "Selection"]


@dataclass(frozen=True)
class Gated:
    """What a model multiplies by: ``features`` ``[B, m]`` its embeddings, ``pairs`` ``[P]`` or ``[B, P]`` its
    interactions, ``history`` ``[B, L]`` the embeddings of a sequence; None is 1."""

    features: Tensor | None = None
    pairs: Tensor | None = None
    history: Tensor | None = None


OPEN = Gated()
"""No gates."""


@dataclass(frozen=True)
class Selection:
    """What is open: bool ``[n]`` values, ``[m]`` fields, ``[P]`` pairs; all True where there are no such gates.

    ``paired``, bool ``[n]``, are the values whose interactions gates of products leave: two values meet if both are,
    and the pair of their fields is open. A value that is not stays in the table. None where there are no such gates.
    It lies on the CPU, whatever the gates lie on.
    """

    values: Tensor
    fields: Tensor
    pairs: Tensor
    offsets: tuple[int, ...]
    paired: Tensor | None = None

    def rows(self) -> Tensor:
        """Values that a table needs: open, and of an open field, bool ``[n]``."""
        sizes = torch.diff(torch.tensor([*self.offsets, len(self.values)]))
        return self.values & torch.repeat_interleave(self.fields, sizes)


class GateSet(nn.Module):
    """Gates of different kinds; those of one target are multiplied.

    Args:
        kinds: names of ``GATES``, different ones.
        sizes: ids per field, see ``Gates``.
        relaxation: how all of them are learned.
        target: field that a history is made of; its gate is that of the history, too.
    Raises: UnknownNameError; BadInputError for a kind named twice.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        sizes: Sequence[int],
        relaxation: Relaxation,
        *,
        sparse: bool = True,
        target: int = 0,
    ) -> None:
        super().__init__()
        if len(set(kinds)) < len(kinds):
            raise BadInputError(f"kinds of gates must be different, got {', '.join(kinds)}; name each once")
        self.sizes = tuple(sizes)
        self.relaxation = relaxation
        self.target = target
        self._gates = nn.ModuleDict({name: GATES[name](sizes, relaxation, sparse=sparse) for name in sorted(kinds)})

    @property
    def gates(self) -> Mapping[str, Gates]:
        """By name of their kind."""
        return cast(Mapping[str, Gates], self._gates)

    def forward(
        self,
        ids: Tensor,
        temperature: float = HARD,
        generator: torch.Generator | None = None,
        history: Tensor | None = None,
    ) -> Gated:
        """Gates for the ids ``[B, m]``; ``history`` ``[B, L]`` holds ids of a sequence, negative where it has ended.

        Gates of features reach into a sequence, those of pairs do not.
        """
        found: dict[str, Tensor | None] = {"features": None, "pairs": None, "history": None}

        def put(target: str, gate: Tensor) -> None:
            before = found[target]
            found[target] = gate if before is None else before * gate

        for gates in self.gates.values():
            gate = gates(ids, temperature, generator)
            put(gates.target, gate)
            if history is not None and gates.target == "features":
                if gates.per_value:
                    put("history", gates(history.clamp_min(0), temperature, generator))
                else:
                    put("history", gate[:, self.target : self.target + 1])
        return Gated(**found)

    def price(self, ids: Tensor, temperature: float, counts: Tensor, n_rows: int, growth: float = 0.0) -> Tensor:
        """Sum of ``Gates.price``: times a price in nats, a term of the mean log loss."""
        prices = [gates.price(ids, temperature, counts, n_rows, growth) for gates in self.gates.values()]
        return torch.stack(prices).sum() if prices else torch.zeros((), device=ids.device)

    def selection(self) -> Selection:
        """What the limit of the gates keeps."""
        n, m = sum(self.sizes), len(self.sizes)
        parts = {name: gates.selected().cpu() for name, gates in self.gates.items()}
        offsets = tuple(sum(self.sizes[:i]) for i in range(m))
        return Selection(
            values=parts.get("value", _all(n)),
            fields=parts.get("field", _all(m)),
            pairs=parts.get("pair", _all(m * (m - 1) // 2)),
            offsets=offsets,
            paired=parts.get("product"),
        )

    def kept_ratios(self) -> dict[str, float]:
        """Share of open gates by kind."""
        return {name: gates.kept_ratio() for name, gates in self.gates.items()}


def _all(size: int) -> Tensor:
    return torch.ones(size, dtype=torch.bool)

"""What the backward pass of a lookup gives."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Gradients"]


@dataclass(frozen=True)
class Gradients:
    """None where a gradient was not wanted.

    Args:
        rows: int64 ``[u]``, the ids that occur, rising.
        table: ``[u, columns]``, of those rows of the table.
        gates: ``[n]``, of the gate of each lookup.
        values: ``[u]``, of the gates of those rows.
    """

    rows: Tensor
    table: Tensor | None
    gates: Tensor | None
    values: Tensor | None

"""The rows of a data set where a model trains: held on its device if they fit, else sent batch by batch."""

import threading
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layersearch.kernels.transfer import sent
from layersearch.spaces.tasks.ctr.data import CTRData, Part, PartName

__all__ = ["Batch", "Order", "Placed"]

Order: TypeAlias = NDArray[np.int64] | Tensor
"""Rows of a part in the order of an epoch: on the device if the part is, else on the host."""

Column: TypeAlias = NDArray[np.int32] | NDArray[np.uint8]

_ON_HOST = {torch.int64: np.int64, torch.float32: np.float32}
_SHARE = 0.25
"""Of the memory of a GPU that this process may use and that is free, what one part may take."""


@dataclass(frozen=True)
class Batch:
    """Rows on a device: ids int64 ``[B, m]``, labels float32 ``[B]``, history int64 ``[B, L]`` or None.

    A part that is held there as a whole has the types of ``Part``.
    """

    ids: Tensor
    labels: Tensor
    history: Tensor | None


class Placed:
    """A data set beside a model. Trainings in several threads may share one.

    Args:
        data: which stays on the host, where it may be a mapped file.
        device: of the batches. On a GPU a part is held from its first batch on, if it takes a quarter of what is free
            at most; the rows of others are gathered on the host and sent.
    """

    def __init__(self, data: CTRData, device: torch.device | str = "cpu") -> None:
        self.data = data
        self.device = torch.device(device)
        self._held: dict[PartName, Batch | None] = {}
        self._holding = threading.Lock()

    def order(self, name: PartName, rows: NDArray[np.int64]) -> Order:
        """``rows`` of a part, to be cut into batches."""
        return rows if self._part(name) is None else sent(torch.from_numpy(rows), self.device)

    def batch(self, name: PartName, rows: Order | slice) -> Batch:
        """Rows of a part: a piece of an ``order`` of it, or neighbours."""
        held = self._part(name)
        part = self.data.part(name) if held is None else held
        past = None if part.history is None else self._rows(part.history, rows, torch.int64)
        return Batch(self._rows(part.ids, rows, torch.int64), self._rows(part.labels, rows, torch.float32), past)

    def _rows(self, column: Tensor | Column, rows: Order | slice, dtype: torch.dtype) -> Tensor:
        if isinstance(column, Tensor):
            return (column.index_select(0, rows) if isinstance(rows, Tensor) else column[rows]).to(dtype)
        assert not isinstance(rows, Tensor)
        return sent(torch.from_numpy(column[rows].astype(_ON_HOST[dtype])), self.device)

    def _part(self, name: PartName) -> Batch | None:
        """The part on the device, or None if its batches come from the host."""
        if self.device.type == "cpu":
            return None
        with self._holding:
            if name not in self._held:
                part = self.data.part(name)
                columns = [c for c in (part.ids, part.labels, part.history) if c is not None]
                fits = sum(column.nbytes for column in columns) <= _SHARE * _room(self.device)
                self._held[name] = _hold(part, self.device) if fits else None
            return self._held[name]


def _hold(part: Part, device: torch.device) -> Batch:
    """Waits until the copies are there: another thread's stream may read them."""

    def put(column: Column) -> Tensor:
        return torch.from_numpy(np.require(column, requirements=["C", "W"])).to(device)

    past = None if part.history is None else put(part.history)
    return Batch(put(part.ids), put(part.labels), past)


def _room(device: torch.device) -> float:
    """Bytes that are free on a GPU, and within the share that this process was given."""
    if device.type != "cuda":
        return float("inf")
    free, whole = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device) * whole
    return min(free, share - torch.cuda.memory_allocated(device))

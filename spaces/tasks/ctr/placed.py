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

_SHARE = 0.25
"""Of the memory of a GPU that this process may use and that is free, what one part may take."""


@dataclass(frozen=True)
class Batch:
    """Rows on a device: ids int64 ``[B, m]``, labels float32 ``[B]``, history int64 ``[B, L]`` or None."""

    ids: Tensor
    labels: Tensor
    history: Tensor | None


@dataclass(frozen=True)
class _Held:
    """A part on a device, in the types of ``Part``."""

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
        self._held: dict[PartName, _Held | None] = {}
        self._holding = threading.Lock()

    def order(self, name: PartName, rows: NDArray[np.int64]) -> Order:
        """``rows`` of a part, to be cut into batches."""
        return rows if self._part(name) is None else sent(torch.from_numpy(rows), self.device)

    def batch(self, name: PartName, rows: Order | slice) -> Batch:
        """Rows of a part: a piece of an ``order`` of it, or neighbours."""
        held = self._part(name)
        if held is None:
            return self._gathered(self.data.part(name), rows)

        def found(column: Tensor) -> Tensor:
            return column.index_select(0, rows) if isinstance(rows, Tensor) else column[rows]

        past = None if held.history is None else found(held.history).long()
        return Batch(found(held.ids).long(), found(held.labels).float(), past)

    def _gathered(self, part: Part, rows: Order | slice) -> Batch:
        assert not isinstance(rows, Tensor)

        def found(column: NDArray[np.int32] | NDArray[np.uint8], dtype: type) -> Tensor:
            return sent(torch.from_numpy(column[rows].astype(dtype)), self.device)

        past = None if part.history is None else found(part.history, np.int64)
        return Batch(found(part.ids, np.int64), found(part.labels, np.float32), past)

    def _part(self, name: PartName) -> _Held | None:
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


def _hold(part: Part, device: torch.device) -> _Held:
    """Waits until the copies are there: another thread's stream may read them."""

    def put(column: NDArray[np.int32] | NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.require(column, requirements=["C", "W"])).to(device)

    past = None if part.history is None else put(part.history)
    return _Held(put(part.ids), put(part.labels), past)


def _room(device: torch.device) -> float:
    """Bytes that are free on a GPU, and within the share that this process was given."""
    if device.type != "cuda":
        return float("inf")
    free, whole = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device) * whole
    return min(free, share - torch.cuda.memory_allocated(device))

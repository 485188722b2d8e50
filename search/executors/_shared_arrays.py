"""Arrays that worker processes share: one copy in memory, freed by the kernel with the last process that has it."""

import mmap
import os
import tempfile
from multiprocessing import reduction
from typing import Any

import numpy as np

from layersearch.errors import RunError
from layersearch.spaces.contracts import Arrays

__all__ = ["SharedArrays"]

_ALIGNMENT = 64

_Layout = tuple[tuple[str, str, tuple[int, ...], int], ...]
"""Name, dtype, shape and offset of each array."""


class SharedArrays:
    """A copy of ``arrays`` in an anonymous file; sent to a child process it arrives as the same memory.

    Not ``multiprocessing.shared_memory``: that lives in /dev/shm, which is 64 MB in many containers (a larger set ends
    the process with SIGBUS) and keeps its blocks when the runner is killed together with its helpers.

    Raises: RunError if there is no room.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._fd = _anonymous_file()
        layout, offset = [], 0
        try:
            for name, array in arrays.items():
                data = np.ascontiguousarray(array)
                layout.append((name, data.dtype.str, data.shape, offset))
                _write(self._fd, data.reshape(-1).view(np.uint8).data, offset)
                offset += -(-data.nbytes // _ALIGNMENT) * _ALIGNMENT
            os.ftruncate(self._fd, max(offset, _ALIGNMENT))
        except OSError as error:
            os.close(self._fd)
            raise RunError(
                f"the data must fit into memory once, but it does not ({error.strerror}); use a smaller data set"
            ) from error
        self._layout: _Layout = tuple(layout)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Views on the shared memory. Writing to one makes a private copy of that page, unseen by other processes."""
        memory = mmap.mmap(self._fd, 0, access=mmap.ACCESS_COPY)
        views = {}
        for name, dtype, shape, offset in self._layout:
            n = int(np.prod(shape, dtype=np.int64))
            view = np.frombuffer(memory, dtype, n, offset) if n else np.zeros(0, dtype)
            views[name] = view.reshape(shape)
        return views

    def close(self) -> None:
        os.close(self._fd)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (reduction.DupFd(self._fd), self._layout)


def _attach(duplicate: Any, layout: _Layout) -> SharedArrays:
    shared = SharedArrays.__new__(SharedArrays)
    shared._fd, shared._layout = duplicate.detach(), layout
    return shared


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("layersearch-data")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        n = os.pwrite(fd, data, offset)
        data, offset = data[n:], offset + n

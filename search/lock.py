"""One runner per run folder: a kernel lock that ends with its process and that workers do not inherit."""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from layersearch.errors import RunError, StoreError
from layersearch.search.store_reader import StoreReader
from layersearch.search.store_schema import no_locks

__all__ = ["LOCK_FILE", "RunLock", "holder", "run_state"]

LOCK_FILE = "lock"
_TRIES = 10
_PAUSE_S = 0.05


class RunLock:
    """Holds ``<run_dir>/lock`` while entered; the file holds the pid. Opened close-on-exec, as Python does by default.

    Raises: StoreError with the pid of the process that holds it, or where files cannot be locked; RunError if the disk
        is full.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(run_dir) / LOCK_FILE
        self._fd: int | None = None

    def __enter__(self) -> Self:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(error) from error
            raise StoreError(
                f"the run folder must be writable, but {self.path} cannot be made ({error.strerror}); "
                "choose another --runs-dir"
            ) from error
        # A reader that asks ``holder`` has the lock for a moment: try more than once.
        for n in range(_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if n == _TRIES - 1:
                    pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                    os.close(fd)
                    raise StoreError(
                        f"a run has one runner at a time, and {self.path.parent} is held by process {pid}; "
                        "wait for it or stop it"
                    ) from None
                time.sleep(_PAUSE_S)
            except OSError as error:
                os.close(fd)
                raise no_locks(self.path, error.strerror or str(error)) from error
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(fd)
            raise self._full(error) from error
        self._fd = fd
        return self

    def _full(self, error: OSError) -> RunError:
        return RunError(
            f"the disk must take {self.path}, but does not ({error.strerror}); make room, then resume the run"
        )

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder(run_dir: Path) -> int | None:
    """Pid of the process that runs this run now, or ``None``."""
    try:
        fd = os.open(Path(run_dir) / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdecimal() else 0
    except OSError:  # without locks nobody can hold one
        return None
    finally:
        os.close(fd)
    return None


def run_state(reader: StoreReader) -> str:
    """``running``, ``interrupted`` (also after a kill) or ``finished``."""
    state = reader.state
    if state == "running" and holder(reader.run_dir) is None:
        return "interrupted"
    return state

"""Checkpoints of candidates in flight: one file each, named by its content, gone when the candidate is finished."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from layersearch.errors import RunError

__all__ = ["Checkpoints"]


class Checkpoints:
    """Files ``<run_dir>/checkpoints/<sha256>``, written before the result that refers to them is committed."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = Path(run_dir) / "checkpoints"

    def put(self, data: bytes) -> str:
        """Writes ``data`` and returns its hash. A crash leaves the whole file or none.

        Raises: RunError if the disk does not take it.
        """
        name = hashlib.sha256(data).hexdigest()
        path, partial = self.folder / name, self.folder / f"{name}.partial"
        if self.get(name) is not None:
            return name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise RunError(
                f"a checkpoint must be written to {self.folder}, but that failed ({error.strerror}); "
                "make room or repair the disk, then resume the run"
            ) from error
        return name

    def get(self, name: str) -> bytes | None:
        """The content, or ``None`` if the file is gone or damaged: the stage that made it has to run again."""
        try:
            data = (self.folder / name).read_bytes() if name else b""
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == name else None

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def sweep(self, keep: set[str]) -> None:
        """Deletes every file whose name is not in ``keep``."""
        if self.folder.is_dir():
            self.remove(path.name for path in self.folder.iterdir() if path.name not in keep)

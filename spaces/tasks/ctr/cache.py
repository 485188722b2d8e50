"""Prepared rows on disk: read by mapping them into memory, found again by the content they were made of."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError

__all__ = ["cached", "content_key"]

FORMAT = 3
"""Raised when what is written changes, so that older folders are not read."""

_DONE = "done.json"


def content_key(files: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """SHA-256 of the bytes of ``files``, of ``settings`` (plain data) and of the format, as 32 hex digits."""
    digest = hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            raise DataError(f"the table {path} is missing; put the file there or name another") from None
        except OSError as error:
            raise DataError(f"the table {path} cannot be read ({error.strerror or error}); check it") from None
    return digest.hexdigest()[:32]


def cached(
    folder: Path, key: str, make: Callable[[Path], dict[str, Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and facts of ``key``; made once.

    Args:
        folder: of the cache; made if it is not there.
        make: writes ``NAME.npy`` files into the folder that it is given and returns facts (plain data).
    Returns: the arrays by name, mapped read-only, and the facts.
    """
    place = folder / key
    if not (place / _DONE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=folder))
        try:
            facts = make(beside)
            (beside / _DONE).write_text(json.dumps(facts))
            if place.exists():  # left by a process that died before it was done
                shutil.rmtree(place)
            os.replace(beside, place)
        except OSError:
            if not (place / _DONE).exists():  # else another process was first, with the same content
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(place.glob("*.npy"))}
    found: dict[str, Any] = json.loads((place / _DONE).read_text())
    return arrays, found

"""Prepared rows on disk: read by mapping them into memory, found again by the content they were made of."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.kernels.user_cache import surplus

__all__ = ["CACHE_LIMIT_BYTES", "Cached", "cached", "content_of", "rows_key"]

FORMAT = 4
"""Raised when what is written changes, so that older folders are not read."""

CACHE_LIMIT_BYTES = 8 * 2**30
"""Of all prepared rows in a cache; 50 million rows of 40 columns. The latest ones stay, be they larger."""

_DONE = "done.json"
_ABANDONED_S = 24 * 3600

Cached: TypeAlias = tuple[dict[str, NDArray[Any]], dict[str, Any]]
"""Arrays by name, and facts."""


def content_of(files: Sequence[Path], expected: str | None = None) -> str:
    """SHA-256 of the bytes of ``files``, as 32 hex digits. Raises: DataError if it is not the one that is expected."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            raise DataError(f"the table {path} is missing; put the file there or name another") from None
        except OSError as error:
            raise DataError(f"the table {path} cannot be read ({error.strerror or error}); check it") from None
    found = digest.hexdigest()[:32]
    if expected not in (None, found):
        names = ", ".join(map(str, files))
        raise DataError(f"{names} must be as the run began with, and was changed since; restore it or begin a new run")
    return found


def rows_key(content: str, settings: Mapping[str, Any]) -> str:
    """Of rows encoded from files of that content by ``settings`` (plain data) in this format, as 32 hex digits."""
    return hashlib.sha256(json.dumps([FORMAT, content, settings], sort_keys=True).encode()).hexdigest()[:32]


def cached(folder: Path, key: str, make: Callable[[Path], dict[str, Any]]) -> Cached:
    """Arrays and facts of ``key``; made once, and kept until others were used later and together are too large.

    Args:
        folder: of the cache; made if it is not there.
        make: writes ``NAME.npy`` files into the folder that it is given and returns facts (plain data).
    Returns: the arrays by name, mapped read-only, and the facts.
    Raises: OSError if the folder cannot be written to.
    """
    place = folder / key
    try:
        return _opened(place)
    except (FileNotFoundError, ValueError, EOFError, KeyError):
        if place.exists():  # a part was removed, or a machine stopped before all was on its disk
            _remove(place)
        return _made(folder, key, make)


def _opened(place: Path) -> Cached:
    """Raises: FileNotFoundError if it is not there as a whole; ValueError, EOFError, KeyError if it is broken.

    Another process may remove it meanwhile, and another make it anew, with the same content.
    """
    done = place / _DONE
    what: dict[str, Any] = json.loads(done.read_text())
    arrays = {n: np.load(place / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in what["arrays"]}
    os.utime(done)
    return arrays, what["facts"]


def _made(folder: Path, key: str, make: Callable[[Path], dict[str, Any]]) -> Cached:
    place = folder / key
    folder.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=folder))
    try:
        facts = make(beside)
        names = sorted(path.stem for path in beside.glob("*.npy"))
        (beside / _DONE).write_text(json.dumps({"arrays": names, "facts": facts}))
        mapped = _opened(beside)  # what is mapped stays, whoever removes the files
        with contextlib.suppress(OSError):  # another process was first, with the same content
            os.replace(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _shrink(folder, place)
    try:
        return _opened(place)
    except FileNotFoundError:
        return mapped


def _shrink(folder: Path, keep: Path) -> None:
    """Removes what killed processes left, and entries not used for longest until the rest is within the limit.

    Another process may have mapped what is removed: to it the rows stay.
    """
    entries = []
    for place in folder.iterdir():
        try:
            if place.name.startswith("."):
                if time.time() - place.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(place, ignore_errors=True)
            elif (place / _DONE).exists():
                size = sum(file.stat().st_size for file in place.iterdir())
                entries.append(((place / _DONE).stat().st_mtime, size, place))
        except FileNotFoundError:  # another process removes, too
            continue
    for place in surplus(entries, keep, CACHE_LIMIT_BYTES, CACHE_LIMIT_BYTES):
        _remove(place)


def _remove(place: Path) -> None:
    """At once, so that nobody finds a part of it."""
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    with contextlib.suppress(OSError):  # another process removed it
        os.replace(place, aside)
    shutil.rmtree(aside, ignore_errors=True)

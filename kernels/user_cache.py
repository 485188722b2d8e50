"""Folders in the user's cache for what is made once and found again by many processes."""

import functools
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["own_folder", "surplus", "user_folder"]


def user_folder(kind: str) -> Path:
    """``layersearch/KIND`` in the user's cache; a folder of this process where that cannot be used.

    It cannot where it is not writable, or where other users could write to it.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "layersearch" / kind
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return own_folder(kind)
    trusted = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and status.st_uid == os.getuid()
    return folder if trusted and writable else own_folder(kind)


@functools.cache
def own_folder(kind: str) -> Path:
    """A temporary folder of this process, removed when it ends."""
    folder = tempfile.TemporaryDirectory(prefix=f"layersearch-{kind}-")
    _own_folders.append(folder)  # kept until the process ends
    return Path(folder.name)


def surplus(
    entries: Iterable[tuple[float, int, Path]], keep: Path, limit_bytes: float, left_bytes: float
) -> list[Path]:
    """What to remove of a cache: nothing up to the limit; beyond it, until so much is left, what was used longest ago.

    Args:
        entries: time of the last use, bytes, path.
        keep: of them the one that stays.
    """
    entries = sorted(entries)
    total = sum(size for _, size, _ in entries)
    removed: list[Path] = []
    if total > limit_bytes:
        for _, size, path in entries:
            if total <= left_bytes:
                break
            if path != keep:
                removed.append(path)
                total -= size
    return removed


_own_folders: list[tempfile.TemporaryDirectory[str]] = []

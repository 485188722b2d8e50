"""libsvm and libfm files whose rows have one active index per field: ``label index:1 index:1 …``."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.spaces.tasks.ctr.cache import content_of
from layersearch.spaces.tasks.ctr.data import CTRData, Part

__all__ = ["from_indices", "read_libsvm", "read_libsvm_parts"]

Indices = NDArray[np.int64]


def read_libsvm(path: Path) -> tuple[Indices, NDArray[np.uint8]]:
    """Indices ``[N, m]`` and labels ``[N]`` (0 or 1; -1 counts as 0).

    Raises: DataError with the row if it has another number of fields, a value other than 1, an index that is no whole
        number below 2**63, or is no such row.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"the data file {path} is missing; put the file there or name another") from None
    except OSError as error:
        raise DataError(f"the data file {path} cannot be read ({error.strerror or error}); check it") from None
    lines = text.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{path} must have rows, got an empty file; write them")
    n, m = len(lines), lines[0].count(b":")
    width = 1 + 2 * m
    words = text.replace(b":", b" ").split()
    if len(words) != n * width:
        raise DataError(_broken(path, lines, m))
    indices = np.empty((n, m), np.int64)
    wrong = np.array([line.count(b":") != m for line in lines])
    try:
        labels = _numbers(words[::width])
        for j in range(m):
            indices[:, j] = np.fromiter(map(int, words[1 + 2 * j :: width]), np.int64, n)
            wrong |= _numbers(words[2 + 2 * j :: width]) != 1
    except (ValueError, OverflowError):
        raise DataError(_broken(path, lines, m)) from None
    wrong |= ~np.isin(labels, (-1.0, 0.0, 1.0)) | (indices < 0).any(1)
    if wrong.any():
        raise DataError(_broken(path, lines, m, int(wrong.argmax())))
    return indices, (labels > 0).astype(np.uint8)


def _numbers(words: list[bytes]) -> NDArray[np.float64]:
    return np.fromiter(map(float, words), np.float64, len(words))


def _broken(path: Path, lines: list[bytes], m: int, row: int | None = None) -> str:
    if row is None:
        row = next((i for i, line in enumerate(lines) if not _is_whole(line, m)), 0)
    most = max(map(int, re.findall(rb"(\d{1,4000}):", lines[row])), default=0)
    if most >= 2**63:
        return f"indices of {path} must be below 2**63, row {row + 1} has {most!r:.40}; hash them to fewer bits"
    return (
        f"every row of {path} must be a label 0 or 1 and {m} times index:1, row {row + 1} is "
        f"{lines[row].decode('ascii', 'replace')!r:.60}; correct it"
    )


def _is_whole(line: bytes, m: int) -> bool:
    words = line.replace(b":", b" ").split()
    try:
        largest = max(map(int, words[1::2]), default=0)
        list(map(float, words[::2]))
    except ValueError:
        return False
    return len(words) == 1 + 2 * m and line.count(b":") == m and largest < 2**63


def read_libsvm_parts(files: Mapping[str, Path], name: str = "libsvm", content: str | None = None) -> CTRData:
    """Data of the files of ``train``, ``validation`` and ``test``; field ``j`` is the ``j``-th index of a row.

    ``content``: what ``content_of`` the files must be; None for any.
    """
    content = content_of(list(map(Path, files.values())), content)
    parts = {part: read_libsvm(Path(path)) for part, path in files.items()}
    if set(parts) != {"train", "validation", "test"}:
        raise DataError(
            f"files must be given for train, validation and test, got {', '.join(parts) or 'none'}; name them"
        )
    m = parts["train"][0].shape[1]
    for part, (indices, _) in parts.items():
        if indices.shape[1] != m:
            raise DataError(
                f"rows of {files[part]} must have {m} fields as in train, got {indices.shape[1]}; correct it"
            )
    return replace(from_indices(name, tuple(f"f{j}" for j in range(m)), parts), content=content)


def from_indices(name: str, fields: tuple[str, ...], parts: Mapping[str, tuple[Indices, NDArray[np.uint8]]]) -> CTRData:
    """Data of whole numbers per field; those that do not occur in train become the field's unknown value."""
    train = parts["train"][0]
    encoded: dict[str, list[NDArray[np.int32]]] = {part: [] for part in parts}
    sizes, vocabulary, offset = [], [], 0
    for j in range(train.shape[1]):
        known = np.unique(train[:, j])
        for part, (indices, _) in parts.items():
            place = np.minimum(np.searchsorted(known, indices[:, j]), len(known) - 1)
            ids = np.where(known[place] == indices[:, j], place + 1, 0) + offset
            encoded[part].append(ids.astype(np.int32))
        sizes.append(len(known) + 1)
        vocabulary.append(tuple(map(str, known.tolist())))
        offset += sizes[-1]
    made = {part: Part(np.stack(columns, 1), parts[part][1]) for part, columns in encoded.items()}
    return CTRData(name, fields, tuple(sizes), made["train"], made["validation"], made["test"], None, tuple(vocabulary))

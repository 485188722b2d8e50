"""CIFAR-10 from its published files, binary or python layout, without ever running what a pickle asks for.

Source of both layouts: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009).
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.spaces.tasks.files import read_bytes, require_folder

__all__ = ["read_cifar10"]

CLASSES = 10
RECORDS = 10_000  # per file, in both layouts; a file cut at a record's end is then noticed, too
PIXELS = 3 * 32 * 32
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILE = "test_batch"

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_cifar10(data_dir: Path | None) -> tuple[Part, Part]:
    """Train and test part, each ``(uint8 [N, 3, 32, 32], int64 [N])``, in the published order.

    The binary layout is taken where both are present. Raises: DataError for a missing, truncated or foreign file.
    """
    folder = require_folder(data_dir, "cifar10", BINARY, PYTHON)
    read, suffix = (_read_binary, ".bin") if folder.name == BINARY else (_read_python, "")
    batches = [read(folder / f"{name}{suffix}") for name in TRAIN_FILES]
    train = np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
    return train, read(folder / f"{TEST_FILE}{suffix}")


def _read_binary(path: Path) -> Part:
    """Records of one label byte and 3,072 bytes: the red, green and blue plane."""
    raw = read_bytes(path, size=RECORDS * (1 + PIXELS))
    records = np.frombuffer(raw, np.uint8).reshape(RECORDS, 1 + PIXELS)
    return _checked(path, records[:, 1:], records[:, 0].astype(np.int64))


def _read_python(path: Path) -> Part:
    raw = read_bytes(path, at_most=2 * RECORDS * (1 + PIXELS))
    try:
        batch = _DataOnlyUnpickler(io.BytesIO(raw), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    except Exception as error:  # a broken pickle raises nearly anything
        raise DataError(f"{path} is not a CIFAR-10 batch ({type(error).__name__}: {error}); fetch it again") from None
    if not isinstance(batch, dict):
        raise DataError(f"{path} must hold a dictionary, got {type(batch).__name__}; fetch the file again")
    entries = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    data, labels = entries.get("data"), entries.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise DataError(f"{path} must hold an array 'data' and a list 'labels'; fetch the file again")
    if len(labels) != RECORDS or any(type(label) is not int for label in labels):
        raise DataError(f"{path} must hold {RECORDS:,} integer labels, got {len(labels):,} entries; fetch it again")
    if any(not 0 <= label < CLASSES for label in labels):
        raise DataError(f"{path} has a label outside 0..{CLASSES - 1}; fetch the file again")
    return _checked(path, data.read(path), np.array(labels, np.int64))


def _checked(path: Path, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Part:
    if labels.max() >= CLASSES:
        raise DataError(f"{path} has label {labels.max()}, labels must be 0..{CLASSES - 1}; fetch the file again")
    return np.ascontiguousarray(pixels).reshape(RECORDS, 3, 32, 32), labels


class _Dtype:
    """Stands in for ``numpy.dtype``: remembers its code."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like; a uint8 has none."""


class _Array:
    """Stands in for a pickled array: keeps what was written, builds nothing."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def read(self, path: Path) -> NDArray[np.uint8]:
        try:
            _, shape, dtype, fortran, raw = self.state
            fits = (
                shape == (RECORDS, PIXELS)
                and isinstance(dtype, _Dtype)
                and dtype.code in ("u1", "|u1", "uint8")
                and isinstance(raw, bytes)
                and len(raw) == math.prod(shape)
            )
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise DataError(f"{path} must hold a uint8 array of shape [{RECORDS}, {PIXELS}]; fetch the file again")
        pixels = np.frombuffer(raw, np.uint8)
        return pixels.reshape(shape, order="F" if fortran else "C")


class _DataOnlyUnpickler(pickle.Unpickler):
    """Plain containers and the three names that a numpy array is pickled with, each bound to a stand-in above.

    Nothing that a file names is imported or called, numpy's own constructors (which trust their input) included.
    """

    NAMES = {  # noqa: RUF012 - never changed
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.NAMES[module, name]
        except KeyError:
            raise DataError(f"asks to load '{module}.{name}', but a batch holds only arrays; do not use it") from None

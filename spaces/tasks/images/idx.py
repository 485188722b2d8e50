"""MNIST and Fashion-MNIST from their published IDX files, gzipped or not.

Format: big-endian magic (0x00000803 images, 0x00000801 labels), one int32 per axis, then bytes
(http://yann.lecun.com/exdb/mnist, section "file formats").
"""

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.spaces.tasks.files import read_bytes, require_folder

__all__ = ["idx_reader"]

CLASSES = 10
SIDE = 28
MAX_RECORDS = 1_000_000  # 784 MB of pixels: what a header may ask for
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def idx_reader(folder: str) -> Callable[[Path | None], tuple[Part, Part]]:
    """A reader of the four IDX files in ``folder``: train and test part, each ``(uint8 [N, 1, 28, 28], int64 [N])``.

    The reader raises DataError for a missing, truncated or foreign file.
    """

    def read(data_dir: Path | None) -> tuple[Part, Part]:
        place = require_folder(data_dir, folder, folder)
        return _read_part(place, "train"), _read_part(place, "t10k")

    return read


def _read_part(place: Path, prefix: str) -> Part:
    image_path = _either(place / f"{prefix}-images-idx3-ubyte")
    label_path = _either(place / f"{prefix}-labels-idx1-ubyte")
    images = _read_idx(image_path, IMAGES_MAGIC, (SIDE, SIDE))
    labels = _read_idx(label_path, LABELS_MAGIC, ())
    if len(images) != len(labels):
        raise DataError(
            f"{label_path} must hold one label per image, got {len(labels):,} for {len(images):,} images; "
            "fetch both files again"
        )
    if labels.max() >= CLASSES:
        raise DataError(f"{label_path} has label {labels.max()}, labels must be 0..{CLASSES - 1}; fetch it again")
    return images.reshape(-1, 1, SIDE, SIDE), labels.astype(np.int64)


def _either(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists() and not packed.exists():
        raise DataError(f"the data file {path} (or .gz) is missing; put the file there or choose another data set")
    return path if path.exists() else packed


def _read_idx(path: Path, magic: int, record_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    record = int(np.prod(record_shape, dtype=np.int64))
    header_format = f">{2 + len(record_shape)}i"
    header_bytes = struct.calcsize(header_format)
    raw = _content(path, header_bytes + MAX_RECORDS * record)
    if len(raw) < header_bytes:
        raise DataError(f"{path} must begin with {header_bytes} bytes of header, got {len(raw)}; fetch it again")
    found, count, *shape = struct.unpack_from(header_format, raw)
    if found != magic:
        raise DataError(f"{path} must begin with the magic number {magic}, got {found}; it is not this IDX file")
    if tuple(shape) != record_shape:
        raise DataError(f"{path} must hold images of {SIDE}x{SIDE}, its header says {'x'.join(map(str, shape))}")
    if not 0 < count <= MAX_RECORDS:
        raise DataError(f"{path} must hold 1 to {MAX_RECORDS:,} records, its header says {count:,}; fetch it again")
    if len(raw) != header_bytes + count * record:
        raise DataError(
            f"{path} must hold {header_bytes + count * record:,} bytes for its {count:,} records, "
            f"got {len(raw):,}; fetch the file again"
        )
    return np.frombuffer(raw, np.uint8, offset=header_bytes).reshape(count, *record_shape)


def _content(path: Path, at_most: int) -> bytes:
    """The unpacked bytes, one more than ``at_most`` at the most, so that a small file cannot fill the memory."""
    if path.suffix != ".gz":
        return read_bytes(path, at_most=at_most)
    read_bytes(path, at_most=at_most)
    try:
        with gzip.open(path) as file:
            return file.read(at_most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}); fetch the file again") from None

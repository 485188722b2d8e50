"""Named image data sets, as they were published, in one form: uint8 in, normalisation later."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.primitives.registry import Registry
from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.images.cifar import read_cifar10
from layersearch.spaces.tasks.images.digits import read_digits
from layersearch.spaces.tasks.images.idx import idx_reader

__all__ = ["IMAGE_SETS", "ImageData", "ImageSet", "from_arrays", "load_images", "to_arrays"]

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class ImageData:
    """A published train and test part.

    Args:
        train_x, test_x: uint8 ``[N, C, H, W]``, H = W.
        train_y, test_y: int64 ``[N]``, values 0..classes - 1.
        classes: number of classes.
        name: a name of ``IMAGE_SETS``.
    """

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]
    classes: int
    name: str


@dataclass(frozen=True)
class ImageSet:
    """What is known of a data set before it is read.

    Args:
        read: data folder (or None) -> train and test part.
        side: height and width in pixels.
        flip: whether a mirrored image still shows its class.
    """

    read: Callable[[Path | None], tuple[Part, Part]]
    side: int
    channels: int
    classes: int
    flip: bool


IMAGE_SETS: Registry[ImageSet] = Registry("data set")
IMAGE_SETS.add("cifar10", ImageSet(read_cifar10, side=32, channels=3, classes=10, flip=True))
IMAGE_SETS.add("digits", ImageSet(lambda _: read_digits(), side=16, channels=1, classes=10, flip=False))
IMAGE_SETS.add("fashion_mnist", ImageSet(idx_reader("fashion_mnist"), side=28, channels=1, classes=10, flip=True))
IMAGE_SETS.add("mnist", ImageSet(idx_reader("mnist"), side=28, channels=1, classes=10, flip=False))


def load_images(name: str, data_dir: Path | None = None) -> ImageData:
    """Reads a data set from ``data_dir``, the only place searched; nothing is downloaded.

    Raises: UnknownNameError for a name not in ``IMAGE_SETS``; DataError if files are missing, truncated or foreign.
    """
    known = IMAGE_SETS[name]
    (train_x, train_y), (test_x, test_y) = known.read(data_dir)
    return ImageData(train_x, train_y, test_x, test_y, known.classes, name)


def to_arrays(data: ImageData) -> Arrays:
    """``data`` as plain arrays, which processes can share. Inverse of ``from_arrays``."""
    return {
        "train_x": data.train_x,
        "train_y": data.train_y,
        "test_x": data.test_x,
        "test_y": data.test_y,
        "classes": np.array([data.classes], np.int64),
        "name": np.frombuffer(data.name.encode("ascii"), np.uint8),
    }


def from_arrays(arrays: Arrays) -> ImageData:
    """The data set that ``to_arrays`` took apart. Raises: DataError if an array is missing."""
    try:
        return ImageData(
            train_x=arrays["train_x"],
            train_y=arrays["train_y"],
            test_x=arrays["test_x"],
            test_y=arrays["test_y"],
            classes=int(arrays["classes"][0]),
            name=arrays["name"].tobytes().decode("ascii"),
        )
    except KeyError as missing:
        raise DataError(f"the arrays of an image task must include {missing}, got {sorted(arrays)}") from None

"""The handwritten digits bundled with scikit-learn: the default data set, which needs no files."""

import random

import numpy as np
from numpy.typing import NDArray

from layersearch.primitives.seeds import Seeds

__all__ = ["read_digits"]

TEST_FRACTION = 0.2
SPLIT_SEED = 0  # part of the data set: every user and every run has the same test part

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_digits() -> tuple[Part, Part]:
    """Train (1,438) and test (359) part, each ``(uint8 [N, 1, 16, 16], int64 [N])``, stratified, in a fixed order.

    The 8x8 images with values 0..16 are scaled to 0..255 and upsampled bilinearly (half-pixel centres) to 16x16:
    at 8x8 even published layers fail in anchor networks with the strides of CIFAR.
    """
    from sklearn.datasets import load_digits  # half a second to import; needed by this data set alone

    bunch = load_digits()
    weights = _bilinear(8, 16)
    pixels = np.rint(weights @ bunch.images @ weights.T * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    rng = Seeds(SPLIT_SEED).stream("digits")
    test: list[int] = []
    for digit in range(10):
        members = np.flatnonzero(labels == digit).tolist()
        test += rng.sample(members, round(TEST_FRACTION * len(members)))
    train = sorted(set(range(len(labels))) - set(test))
    return _shuffled(pixels, labels, train, rng), _shuffled(pixels, labels, test, rng)


def _shuffled(pixels: NDArray[np.uint8], labels: NDArray[np.int64], rows: list[int], rng: random.Random) -> Part:
    rng.shuffle(rows)
    return np.ascontiguousarray(pixels[rows]), labels[rows]


def _bilinear(n_in: int, n_out: int) -> NDArray[np.float64]:
    """``[n_out, n_in]`` weights of linear interpolation with half-pixel centres and clamped edges."""
    position = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(n_in)))

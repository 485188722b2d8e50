"""Images on the device and the batches made of them: a pure function of (seed, step), normalised on the way."""

import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layersearch.errors import DataError
from layersearch.primitives.seeds import Seeds

if TYPE_CHECKING:
    from layersearch.spaces.tasks.images.settings import ImageRecipe

__all__ = ["Images", "channel_moments", "drawn", "shrunk", "training_batch"]

ORDERS_KEPT = 32
"""Shuffled epochs that are kept: one for each training that runs in this process at a time."""


class Images:
    """uint8 images and their labels on one device, given out as normalised float32 in channels-last form.

    Args:
        pixels: uint8 ``[N, C, H, W]``; on the CPU the memory is shared with the array.
        labels: int64 ``[N]``.
        mean, std: ``[C]``, in units of 0..255.
    """

    def __init__(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], mean: Tensor, std: Tensor, device: torch.device
    ) -> None:
        self.pixels = _tensor(pixels).to(device)
        self.labels = _tensor(labels).to(device)
        self.device = device
        self._scale = (1 / std).to(device, torch.float32)
        self._shift = (-mean / std).to(device, torch.float32)

    def whole(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The central ``size`` x ``size`` pixels of the images ``rows``, and their labels."""
        rows = rows.to(self.device)
        edge = (self.pixels.shape[-1] - size) // 2
        picked = self.pixels[rows][:, :, edge : edge + size, edge : edge + size]
        return self._normalised(picked.permute(0, 2, 3, 1)), self.labels[rows]

    def crops(self, rows: Tensor, top: Tensor, left: Tensor, size: int, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Crops with their upper left corner at ``(top, left)``, black outside of the image, and their labels.

        Nothing here waits for the device if the arguments lie there.
        """
        side = self.pixels.shape[-1]
        along = torch.arange(size, device=top.device)
        ys = (top[:, None] + along).to(self.device)
        xs = (left[:, None] + torch.where(mirrored[:, None], size - 1 - along, along)).to(self.device)
        rows = rows.to(self.device)
        # Indices on both sides of the channel axis put the channels last: no transposition follows.
        picked = self.pixels[rows[:, None, None], :, ys.clamp(0, side - 1)[:, :, None], xs.clamp(0, side - 1)[:, None]]
        inside = ((ys >= 0) & (ys < side))[:, :, None] & ((xs >= 0) & (xs < side))[:, None]
        return self._normalised(picked * inside[..., None]), self.labels[rows]

    def drawn(self, draw: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The batch of crops of side ``size`` that the function ``drawn`` chose."""
        rows, top, left, mirrored = draw.unbind()
        return self.crops(rows, top, left, size, mirrored.bool())

    def _normalised(self, pixels: Tensor) -> Tensor:
        """``[B, H, W, C]`` uint8 to ``[B, C, H, W]`` float32, channels last."""
        scaled = pixels.to(torch.float32, memory_format=torch.contiguous_format) * self._scale + self._shift
        return scaled.permute(0, 3, 1, 2)


def training_batch(
    images: Images, rows: NDArray[np.int64], settings: "ImageRecipe", seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """The batch of ``step`` (from 0): epochs in seeded random order, then random crops and, if set, mirroring."""
    return images.drawn(drawn(rows, settings, seed, step).to(images.device), settings.crop)


def drawn(rows: NDArray[np.int64], settings: "ImageRecipe", seed: int, step: int) -> Tensor:
    """What is random about the batch of ``step``: int64 ``[4, B]``, image, top, left and (0 or 1) mirrored."""
    seeds = Seeds(seed)
    per_epoch = len(rows) // settings.batch
    if per_epoch == 0:
        raise DataError(f"batch must be at most the {len(rows)} training images, got {settings.batch}; make it smaller")
    epoch, i = divmod(step, per_epoch)
    order = _order(seeds.derive("order", epoch), len(rows))
    picked = torch.from_numpy(rows)[order[i * settings.batch : (i + 1) * settings.batch]]
    draw = _generator(seeds.derive("augment", step))
    low, n_offsets = -settings.padding, settings.image_size + 2 * settings.padding - settings.crop + 1
    top, left = low + torch.randint(n_offsets, (2, settings.batch), generator=draw)
    mirrored = torch.randint(2, (settings.batch,), generator=draw) * settings.flip
    return torch.stack([picked, top, left, mirrored])


def channel_moments(pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel (float64 ``[C]``) of the images ``rows``; exact integer sums."""
    first = torch.zeros(pixels.shape[1], dtype=torch.int64)
    second = torch.zeros_like(first)
    for part in np.array_split(rows, max(1, len(rows) // 1024)):
        values = torch.from_numpy(pixels[part]).to(torch.int32)
        first += values.sum((0, 2, 3))
        second += values.square().sum((0, 2, 3))
    n = len(rows) * pixels.shape[2] * pixels.shape[3]
    mean = first.double() / n
    variance = second.double() / n - mean.square()
    return mean, variance.clamp_min(1.0).sqrt()  # a constant channel is left unscaled


def shrunk(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Averages over ``factor`` x ``factor`` squares, rounded."""
    if factor == 1:
        return pixels
    n, c, h, w = pixels.shape
    squares = pixels.reshape(n, c, h // factor, factor, w // factor, factor)
    total: NDArray[np.uint16] = squares.sum((3, 5), dtype=np.uint16)
    mean: NDArray[np.uint8] = ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)
    return mean


@functools.lru_cache(maxsize=ORDERS_KEPT)
def _order(seed: int, n: int) -> Tensor:
    """A shuffle of n rows; kept for the epoch, since it costs as much as a small training step."""
    return torch.randperm(n, generator=_generator(seed))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _tensor(array: NDArray[Any]) -> Tensor:
    """Shares memory, with read-only arrays, too: nothing here writes to images or labels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)

"""What can be known of a model without training: can it work at all, and is it new."""

import functools
import random

import torch
from torch import Tensor

from layersearch.spaces.contracts import Outline, Probe
from layersearch.spaces.kan.images.genome import ImageGenome
from layersearch.spaces.kan.images.network import build, canonical, count_parameters, operations
from layersearch.spaces.kan.screen import agree, outlined, probed
from layersearch.spaces.tasks.images.models import ConvShape, ImageClassifier

__all__ = ["outline", "probe", "probe_images", "same_function"]

_IMAGES = 4


def outline(genome: ImageGenome, in_channels: int, classes: int, most_parameters: int, most_operations: int) -> Outline:
    """Structural key, and why the model cannot be made or is too large."""
    shape = genome.shape
    widths = (shape.stem, *shape.channels[:-1]) if isinstance(shape, ConvShape) else (shape.width, shape.hidden)
    costs = {
        "parameters": (count_parameters(genome, in_channels, classes), most_parameters),
        "operations per image": (operations(genome, in_channels, classes), most_operations),
    }
    return outlined(canonical(genome, classes), genome.layer.domain, widths, costs)


def probe(genome: ImageGenome, in_channels: int, classes: int) -> Probe:
    """Functional key, and why the model cannot work if one forward and backward pass tells; see ``kan.screen.probe``.

    Novelty is the design without its numbers.
    """
    layer, shape = genome.layer, genome.shape
    depth = len(shape.channels) if isinstance(shape, ConvShape) else shape.depth
    novelty = f"{genome.kind}|{layer.basis}|{layer.base}|{layer.domain}|{depth}"
    return probed(lambda: _drawn(genome, in_channels, classes, 0), probe_images(in_channels, shape.side)[0], novelty)


def same_function(a: ImageGenome, b: ImageGenome, in_channels: int, classes: int) -> bool:
    """Whether outputs agree with other weights, on a batch that no key is made from."""
    if a.shape.side != b.shape.side:
        return False
    return agree(
        [_drawn(genome, in_channels, classes, 1) for genome in (a, b)], probe_images(in_channels, a.shape.side)[1]
    )


def _drawn(genome: ImageGenome, in_channels: int, classes: int, seed: int) -> ImageClassifier:
    generator = torch.Generator().manual_seed(seed)
    return build(genome, in_channels, classes, generator=generator, dtype=torch.float64)


@functools.cache
def probe_images(in_channels: int, side: int) -> tuple[Tensor, ...]:
    """Two batches of normal pixels; python's generator is stable across versions."""
    rng = random.Random("layersearch.kan.images.probe")
    size = _IMAGES * in_channels * side * side
    return tuple(
        torch.tensor([rng.gauss(0.0, 1.0) for _ in range(size)], dtype=torch.float64).reshape(
            _IMAGES, in_channels, side, side
        )
        for _ in range(2)
    )

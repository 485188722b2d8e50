"""What can be known of an S-ConvKAN without training: can it work at all, and is it new."""

import torch

from layersearch.spaces.contracts import Outline, Probe
from layersearch.spaces.kan.images.screen import probe_images
from layersearch.spaces.kan.screen import agree, outlined, probed
from layersearch.spaces.skan.images.genome import SelectingGenome, shape_of
from layersearch.spaces.skan.images.network import build, canonical, most_parameters, operations
from layersearch.spaces.skan.screen import learning
from layersearch.spaces.tasks.images.models import ImageClassifier

__all__ = ["outline", "probe", "same"]


def outline(genome: SelectingGenome, in_channels: int, classes: int, parameters: int, most_operations: int) -> Outline:
    """Structural key, and why the network cannot be made, or is too large: ``parameters`` are counted once pruned."""
    shape = shape_of(genome)
    selecting = (shape.stem, *shape.channels) if genome.head == "kan" else (shape.stem, *shape.channels[:-1])
    costs = {
        "parameters": (most_parameters(genome, in_channels, classes), parameters),
        "operations per image": (operations(genome, in_channels, classes), most_operations),
    }
    return outlined(canonical(genome), genome.layer.domain, selecting, costs)


def probe(genome: SelectingGenome, in_channels: int, classes: int) -> Probe:
    """Functional key, and why the network cannot work if one forward and backward pass tells; see ``skan.screen``."""
    layer = genome.layer
    depth = len(shape_of(genome).channels)
    novelty = f"{'+'.join(layer.bases)}|{layer.gate}|{layer.base}|{layer.domain}|{depth}"
    drawn, x = (lambda: _drawn(genome, in_channels, classes, 0)), probe_images(in_channels, genome.shape.side)[0]
    return probed(drawn, x, novelty, learning=f"|{learning(layer)}")


def same(a: SelectingGenome, b: SelectingGenome, in_channels: int, classes: int) -> bool:
    """Whether both learn alike and outputs agree with other weights, on a batch that no key is made from."""
    if a.shape.side != b.shape.side or learning(a.layer) != learning(b.layer):
        return False
    models = [_drawn(genome, in_channels, classes, 1) for genome in (a, b)]
    return agree(models, probe_images(in_channels, a.shape.side)[1])


def _drawn(genome: SelectingGenome, in_channels: int, classes: int, seed: int) -> ImageClassifier:
    return build(genome, in_channels, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

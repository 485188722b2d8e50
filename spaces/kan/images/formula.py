"""Genomes of images as text: what a user reads in tables and in the head of an exported file."""

from typing import Any

from layersearch.spaces.kan import formula as plain
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.images.genome import ImageGenome
from layersearch.spaces.tasks.images.models import ConvShape

__all__ = ["formula", "latex", "model_text"]


def formula(genome: ImageGenome) -> str:
    """E.g. ``conv 8-16-32, 3×3, max pooling, linear head, gram(degree=3), base silu, domain tanh, init variance``."""
    layer = genome.layer.base if genome.layer.basis == MLP else plain.layer_text(genome.layer)
    return f"{model_text(genome)}, {layer}"


def model_text(genome: ImageGenome[Any]) -> str:
    """The model around the layers."""
    shape = genome.shape
    if isinstance(shape, ConvShape):
        widths = "-".join(map(str, (shape.stem, *shape.channels)))
        model = f"conv {widths}, {shape.kernel}×{shape.kernel}, {shape.pool} pooling"
    else:
        model = f"ViT {shape.depth}×({shape.width}, {shape.hidden}), {shape.heads} heads, patch {shape.patch}"
    return f"{model}, {genome.head} head"


def latex(genome: ImageGenome) -> str:
    """One layer, in the symbols of the basis' source (math mode)."""
    return plain.latex(genome.layer)

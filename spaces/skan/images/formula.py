"""Genomes of images as text: what a user reads in tables and in the head of an exported file."""

from layersearch.spaces.kan.images import formula as kan
from layersearch.spaces.skan import formula as plain
from layersearch.spaces.skan.images.genome import AnyImageGenome, selects

__all__ = ["formula", "latex"]


def formula(genome: AnyImageGenome) -> str:
    """E.g. ``S-ConvKAN: conv 8-16-32, 3×3, max pooling, linear head, one of rbf(…) | sine(…) per channel, …``."""
    if not selects(genome):
        return kan.formula(genome)
    return f"S-ConvKAN: {kan.model_text(genome)}, {plain.layer_text(genome.layer, 'channel')}"


def latex(genome: AnyImageGenome) -> str:
    """One layer after pruning, in the symbols of the bases' sources (math mode)."""
    return plain.latex(genome.layer) if selects(genome) else kan.latex(genome)

"""Named designs: published ways of selecting, as gates and relaxations of this space.

What makes a design is what it gates and how; base model and numbers are the run's.
"""

from layersearch.primitives.registry import unknown_name
from layersearch.spaces.optfs.genome import OptFSGenome

__all__ = ["DESIGNS", "design", "named"]

DESIGNS: dict[str, tuple[str, str, str]] = {
    # values and pairs of fields at once, which OptFS says is what products of its gates stand for
    "optfs-pairs": ("value+pair", "continuation", "price"),
    # OptFS, arXiv:2301.10909: a gate per value by continuation, an L1 price, weights rewound
    "optfs": ("value", "continuation", "price"),
    # AutoFIS, arXiv:2003.11235: a gate per pair of fields; its optimiser GRDA is replaced by continuation
    "autofis": ("pair", "continuation", "price"),
    # AutoField, arXiv:2204.09078: a gate per field by Gumbel draws, a given number kept; one level instead of two
    "autofield": ("field", "gumbel", "ratio"),
}
"""Granularity, relaxation and pressure by name; in the order in which populations start from them."""


def named(genome: OptFSGenome) -> str | None:
    """The design that a genome is of."""
    return {value: name for name, value in DESIGNS.items()}.get((genome.gates, genome.relaxation, genome.pressure))


def design(name: str) -> tuple[str, str, str]:
    """Raises: UnknownNameError."""
    if name not in DESIGNS:
        raise unknown_name("design", name, list(DESIGNS))
    return DESIGNS[name]

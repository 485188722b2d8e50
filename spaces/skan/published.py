"""Designs with a name: seeds, baselines and what a find is recognised as.

Of the published S-KAN (arXiv:2408.08338) its abstract alone was read: four kinds of spaces, three stages. ``skan`` has
these spaces at the settings of the first author's layers (github.com/SeriYann/KANConv2d); gates, shares and pruning are
ours. The other pools are ours, too.
"""

from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.genome import make as make_kan
from layersearch.spaces.kan.published import PUBLISHED as KAN_PUBLISHED
from layersearch.spaces.skan.genome import SKANGenome, make

__all__ = ["PUBLISHED", "design", "single"]

PUBLISHED: dict[str, SKANGenome] = {
    "skan": make(
        {
            "bspline": {"grid": 5, "order": 3},
            "chebyshev": {"degree": 4},
            "mexican_hat": {"grid": 8},
            "rbf": {"grid": 8, "width": 1.0, "learn": False},
        }
    ),
    # Smooth, waves and jumps at once
    "skan-diverse": make({"bspline": {"grid": 8}, "fourier": {"grid": 4}, "piecewise_linear": {"grid": 12}}),
    # One function or few per edge
    "skan-small": make({"chebyshev": {"degree": 5}, "rational": {"start": "silu"}}),
}


def design(genome: SKANGenome) -> tuple[object, ...]:
    """What makes a design: all but start and widths."""
    return (
        genome.pool,
        genome.gate,
        genome.cooling,
        genome.cold,
        genome.shares,
        genome.pruning,
        genome.base,
        genome.domain,
    )


def single(basis: str, hidden: tuple[int, ...]) -> KANGenome:
    """The network of one basis of a pool, at the settings that it has in ``skan``, or at its own ones."""
    if basis == "efficient-kan":
        return KAN_PUBLISHED[basis].with_widths(hidden)
    return make_kan(basis, dict(dict(PUBLISHED["skan"].pool).get(basis, ())), hidden=hidden)

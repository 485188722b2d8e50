"""What there is to choose in a genome beside what the kan space has: pool, gates, stages.

Settings of bases are those of kan, without the groups of rationals: a node chooses alone. Of the published method we
know three stages in this order, and no more (arXiv:2408.08338); ``tests/bench/compare_skan.py`` compares choices.
"""

import functools
from collections.abc import Mapping

from layersearch.primitives.layers.selection import GATE_KINDS
from layersearch.spaces.kan.choices import Choice, OneOf
from layersearch.spaces.kan.choices import settings_of as kan_settings_of

__all__ = [
    "COLD",
    "COOLINGS",
    "DOMAINS",
    "DROP",
    "FULL",
    "GATES",
    "MAX_POOL",
    "OWN",
    "PRUNINGS",
    "SELECTIVE",
    "settings_of",
]

MAX_POOL = 8
OWN = "own"
"""In place of a domain map: that of each basis."""

DROP = "drop"

GATES = OneOf(GATE_KINDS)
COOLINGS = OneOf(("exponential", "linear"))
"""How the temperature falls from 1."""
COLD = OneOf((0.02, 0.05, 0.1, 0.2))
"""The temperature at the end of the selective stage."""
PRUNINGS = OneOf(("fit", "gate"))
"""Which space a node keeps: the one that can say most of what the node has learned, or that of its largest gate. Either
is fitted to the whole node (``primitives.layers.node_fit``). A genome may also have ``drop``, the largest gate with its
weights as they are, which the search does not try: it costs most of what was learned until then."""
FULL = OneOf((0.0, 0.1, 0.2, 0.3))
SELECTIVE = OneOf((0.1, 0.2, 0.3, 0.4))
"""Shares of the training steps; what is left is pruning, the training of the pruned network."""
DOMAINS = OneOf(("clamp", "layernorm", "minmax", "none", OWN, "tanh"))


@functools.cache
def settings_of(basis: str) -> Mapping[str, Choice]:
    """What can be chosen of a basis of a pool, by setting, in sorted order. Raises: UnknownNameError."""
    return {name: choice for name, choice in kan_settings_of(basis).items() if name != "groups"}

"""What there is to choose in a genome beside what the kan space has: pool, gates, stages.

Settings of bases are those of kan, without the groups of rationals: a node chooses alone. Nothing of gates and stages is
known of the published method beyond three stages in this order (arXiv:2408.08338); ``tests/bench/ablate_skan.py``
compares these choices.
"""

import functools
from collections.abc import Mapping

from layersearch.primitives.layers.selection import GATE_KINDS
from layersearch.spaces.kan.choices import Choice, OneOf
from layersearch.spaces.kan.choices import settings_of as kan_settings_of

__all__ = ["COLD", "COOLINGS", "DOMAINS", "FULL", "GATES", "MAX_POOL", "OWN", "SELECTIVE", "settings_of"]

MAX_POOL = 8
OWN = "own"
"""In place of a domain map: that of each basis."""

GATES = OneOf(GATE_KINDS)
COOLINGS = OneOf(("exponential", "linear"))
"""How the temperature falls from 1."""
COLD = OneOf((0.02, 0.05, 0.1, 0.2))
"""The temperature at the end of the selective stage."""
FULL = OneOf((0.0, 0.1, 0.2, 0.3))
SELECTIVE = OneOf((0.1, 0.2, 0.3, 0.4))
"""Shares of the training steps; what is left is pruning, the training of the pruned network."""
DOMAINS = OneOf(("clamp", "layernorm", "minmax", "none", OWN, "tanh"))


@functools.cache
def settings_of(basis: str) -> Mapping[str, Choice]:
    """What can be chosen of a basis of a pool, by setting, in sorted order. Raises: UnknownNameError."""
    return {name: choice for name, choice in kan_settings_of(basis).items() if name != "groups"}

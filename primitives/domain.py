"""Which axes of ``[N, C, H, W]`` a value varies over, so that a mean stays small until it is needed."""

from enum import StrEnum
from typing import NamedTuple

__all__ = ["CONSTANT", "FULL", "PER_CHANNEL", "Axes", "Domain", "join", "meet"]


class Domain(NamedTuple):
    """``n``: over the batch (1) or not; ``c``: over channels (2), groups (1), neither; ``s``: over space (1) or not."""

    n: int
    c: int
    s: int


FULL = Domain(1, 2, 1)
PER_CHANNEL = Domain(0, 2, 0)
CONSTANT = Domain(0, 0, 0)


class Axes(StrEnum):
    """The four axis sets I of the EvoNorm space: what a moment is taken over (arXiv:2004.02967, Table 1)."""

    BATCH = "batch"  # N, H, W: one moment per channel
    LAYER = "layer"  # C, H, W: one per sample
    INSTANCE = "instance"  # H, W: one per sample and channel
    GROUP = "group"  # H, W and the channels of a group: one per sample and group

    @property
    def target(self) -> Domain:
        """Domain of a moment over these axes of a full-size value."""
        return _TARGETS[self]

    @property
    def symbol(self) -> str:
        """The paper's letters for the reduced axes."""
        return _SYMBOLS[self]


_TARGETS = {
    Axes.BATCH: PER_CHANNEL,
    Axes.LAYER: Domain(1, 0, 0),
    Axes.INSTANCE: Domain(1, 2, 0),
    Axes.GROUP: Domain(1, 1, 0),
}
_SYMBOLS = {Axes.BATCH: "b,w,h", Axes.LAYER: "w,h,c", Axes.INSTANCE: "w,h", Axes.GROUP: "w,h,c/g"}


def join(*domains: Domain) -> Domain:
    """Domain of an elementwise function of values with these domains."""
    return Domain(max(d.n for d in domains), max(d.c for d in domains), max(d.s for d in domains))


def meet(a: Domain, b: Domain) -> Domain:
    """Domain left when a value of domain ``a`` is averaged down to ``b``."""
    return Domain(min(a.n, b.n), min(a.c, b.c), min(a.s, b.s))

"""What a compiler of layers is given: passes over one tensor, as plain data. Nothing here knows an op by name.

A program reads ``x`` ``[N, C, H, W]`` (backward: ``x`` and the upstream gradient ``g``) in a few passes. Each pass adds
up full-size values over the plane of every sample and channel; between passes, small values are computed from those
sums; the last pass writes the output. Values that vary over space are never stored.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

__all__ = ["INSTRUCTIONS", "Extent", "Layout", "Pass", "Program", "Result", "Statement", "closure"]


class Extent(NamedTuple):
    """Which axes a value varies over: ``n`` batch, ``c`` channels (2: each, 1: each group, 0: not), ``s`` space."""

    n: int
    c: int
    s: int

    @property
    def cells(self) -> tuple[bool, bool]:
        """Shape class of a stored small value: over the batch; over channels (groups: one value per channel, too)."""
        return bool(self.n), bool(self.c)


CONSTANT = Extent(0, 0, 0)

INSTRUCTIONS = {
    "add": 2,
    "sub": 2,
    "mul": 2,
    "div": 2,
    "neg": 1,
    "abs": 1,
    "sign": 1,  # 0 at 0
    "sqrt": 1,
    "exp": 1,
    "log": 1,
    "sigmoid": 1,
    "tanh": 1,
    "maximum": 2,  # a NaN on either side comes through
    "share": 2,  # share(a, b): part of the gradient of maximum(a, b) that is a's: 1, 0, or 0.5 each in a tie
    "away": 2,  # away(b, e): b + e for b >= 0, b - e below
}
"""Scalar instructions and their number of arguments; every emitter supplies all of them."""


@dataclass(frozen=True)
class Statement:
    """One value.

    ``code`` is a scalar instruction or one of

    - ``x``, ``g``: the tensor and the upstream gradient;
    - ``param``: the ``index``-th parameter, ``[C]`` or one number by its extent;
    - ``given``: the ``index``-th result of the forward program;
    - ``const``: ``value``; ``size``: the product of ``sizes``, of the names N, C, S (= H·W), G (groups), CG (= C / G);
    - ``plane_sum``, ``plane_m2``: sum, and sum of squared deviations from the plane's own mean, over space;
    - ``sum``: sum over the axes that the argument's extent has and this one has not (n alone, or c alone).
    """

    code: str
    args: tuple[int, ...] = ()
    extent: Extent = CONSTANT
    value: float = 0.0
    index: int = 0
    sizes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """``small`` values to compute first, in order; then one reading of the tensor for ``sums`` and ``centred`` sums."""

    small: tuple[int, ...]
    sums: tuple[int, ...] = ()
    centred: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """A small value to hand out, stored at the size of ``extent`` (at least the value's own)."""

    value: int
    extent: Extent


@dataclass(frozen=True)
class Program:
    """Statements in an order of dependence, the passes that compute them, the full-size ``output`` of the last pass."""

    statements: tuple[Statement, ...]
    passes: tuple[Pass, ...]
    output: int
    results: tuple[Result, ...]
    given: tuple[tuple[bool, bool], ...] = ()
    """Shape classes of the forward results that a backward program is given."""
    tracked: tuple[int, ...] = ()
    """Results that running buffers follow, in the order of the buffers; an emitter may move them itself."""

    @property
    def key(self) -> str:
        """Equal for equal programs, in every process."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    @cached_property
    def layout(self) -> "Layout":
        """Where the results lie in their array."""
        return Layout([r.extent.cells for r in self.results])


def closure(statements: Sequence[Statement], targets: Iterable[int], stop: Iterable[int] = ()) -> list[int]:
    """Values that ``targets`` depend on, themselves included, in order; what lies behind ``stop`` is not looked at."""
    at_hand = set(stop)
    reached: set[int] = set()
    waiting = list(targets)
    while waiting:
        i = waiting.pop()
        if i not in reached:
            reached.add(i)
            if i not in at_hand:
                waiting += statements[i].args
    return sorted(reached)


_ORDER = ((True, True), (False, True), (True, False), (False, False))


class Layout:
    """Places of small values in one array of floats: all ``[N, C]`` first, then ``[C]``, ``[N]``, single numbers."""

    def __init__(self, cells: Sequence[tuple[bool, bool]]) -> None:
        self.cells = tuple(cells)
        counts = [self.cells.count(kind) for kind in _ORDER]
        seen = [0, 0, 0, 0]
        places: list[tuple[int, int, int, int]] = []
        for kind in self.cells:
            k = _ORDER.index(kind)
            places.append((*counts[:k], seen[k], *(0,) * (3 - k)))  # type: ignore[arg-type]
            seen[k] += 1
        self.places = tuple(places)
        """Numbers of ``[N, C]``, ``[C]``, ``[N]`` and single values that lie before each value."""
        self.total = (counts[0], counts[1], counts[2], counts[3])

    def offset(self, i: int, n: int, channels: int) -> int:
        """First element of the ``i``-th value."""
        return _elements(self.places[i], n, channels)

    def size(self, n: int, channels: int) -> int:
        """Elements of the whole array."""
        return _elements(self.total, n, channels)


def _elements(counts: tuple[int, int, int, int], n: int, channels: int) -> int:
    planes, per_channel, per_sample, single = counts
    return (planes * n + per_channel) * channels + per_sample * n + single

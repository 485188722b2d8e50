"""Candidates in the order of their non-dominated rank, kept up to date as they come in."""

import math
from bisect import insort
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Fronts"]


class _Entry(NamedTuple):
    """Sorts within a front: the larger mean first, of equal ones the earlier candidate."""

    worse_mean: float
    number: int
    values: tuple[float, ...]


class Fronts:
    """Front 0 is dominated by nobody, front k + 1 only by those before it (Deb et al. 2002, NSGA-II).

    A new point pushes what it dominates one front down, and that, again, what it dominates there (Li et al. 2014, ENLU:
    an efficient non-domination level update), so that nothing is sorted anew. Within a front the order is that of the
    mean over objectives, as in the ranking of a run (``search.rerank.ranked``); with three objectives half of a small
    rung is in front 0, and by number alone the oldest would be preferred to the best.

    >>> fronts = Fronts()
    >>> for number, values in enumerate([(1.0, 1.0), (2.0, 0.0), (3.0, 3.0)]):
    ...     fronts.add(number, values)
    >>> list(fronts)
    [2, 0, 1]
    """

    def __init__(self) -> None:
        self._fronts: list[list[_Entry]] = []
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[int]:
        """Numbers, best first."""
        for front in self._fronts:
            for entry in front:
                yield entry.number

    def add(self, number: int, values: tuple[float, ...]) -> None:
        """Of ``values``, finite and as many for all, larger is better."""
        entry = _Entry(-math.fsum(values) / len(values), number, values)
        self._n += 1
        level = 0
        while level < len(self._fronts) and any(_dominates(other.values, values) for other in self._fronts[level]):
            level += 1
        moving = [entry]
        for front in self._fronts[level:]:
            pushed = [other for other in front if any(_dominates(one.values, other.values) for one in moving)]
            if pushed:
                gone = set(pushed)
                front[:] = [other for other in front if other not in gone]
            for one in moving:
                insort(front, one)
            moving = pushed
            if not moving:
                return
        self._fronts.append(sorted(moving))


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))

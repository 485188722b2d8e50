"""Candidates in the order of their non-dominated rank, kept up to date as they come in and are taken."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

__all__ = ["Fronts"]


class _Entry(NamedTuple):
    """Sorts within a front: the larger mean first, of equal ones the earlier candidate."""

    worse_mean: float
    number: int
    values: tuple[float, ...]


@dataclass
class _Front:
    """Sorted entries; ``left`` are those that were not taken."""

    entries: list[_Entry] = field(default_factory=list)
    left: list[_Entry] = field(default_factory=list)

    def dominates(self, entry: _Entry) -> bool:
        """Whoever dominates has no smaller mean."""
        end = bisect_right(self.entries, entry.worse_mean, key=itemgetter(0))
        return any(_dominates(other.values, entry.values) for other in self.entries[:end])

    def push(self, moving: Sequence[_Entry]) -> list[_Entry]:
        """Takes out what is dominated by one of ``moving``."""
        first = bisect_left(self.entries, min(moving).worse_mean, key=itemgetter(0))
        tail = self.entries[first:]
        pushed = [other for other in tail if any(_dominates(one.values, other.values) for one in moving)]
        if pushed:
            gone = {entry.number for entry in pushed}
            self.entries[first:] = [entry for entry in tail if entry.number not in gone]
            self.left = [entry for entry in self.left if entry.number not in gone]
        return pushed


class Fronts:
    """Front 0 is dominated by nobody, front k + 1 only by those before it (Deb et al. 2002, NSGA-II).

    A new point pushes what it dominates one front down, and that, again, what it dominates there (Li et al. 2014, ENLU:
    an efficient non-domination level update), so that nothing is sorted anew. Within a front the order is that of the
    mean over objectives, as in the ranking of a run (``search.rerank.ranked``); with three objectives half of a small
    rung is in front 0, and by number alone the oldest would be preferred to the best.

    >>> fronts = Fronts()
    >>> for number, values in enumerate([(1.0, 1.0), (2.0, 0.0), (3.0, 3.0)]):
    ...     fronts.add(number, values, sum(values) / 2)
    >>> list(fronts), fronts.first_left(1)
    ([2, 0, 1], 2)
    >>> fronts.take(2)
    >>> fronts.first_left(1), fronts.first_left(2)
    (None, 0)
    """

    def __init__(self) -> None:
        self._fronts: list[_Front] = []
        self._taken: set[int] = set()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[int]:
        """Numbers, best first."""
        for front in self._fronts:
            for entry in front.entries:
                yield entry.number

    def add(self, number: int, values: tuple[float, ...], mean: float) -> None:
        """Of ``values``, as many for all, larger is better (-inf: not known); ``mean`` is theirs, by some weights."""
        entry = _Entry(-mean, number, values)
        self._n += 1
        # One value: the order within a front is all there is to it.
        moving = [entry]
        for front in self._fronts[self._level(entry) :]:
            pushed = front.push(moving) if len(values) > 1 else []
            self._put(front, moving)
            moving = pushed
            if not moving:
                return
        self._fronts.append(_Front())
        self._put(self._fronts[-1], moving)

    def _level(self, entry: _Entry) -> int:
        """The first front in which nobody dominates ``entry``; in all fronts before it, somebody does."""
        low, high = 0, len(self._fronts) if len(entry.values) > 1 else 0
        while low < high:
            middle = (low + high) // 2
            if self._fronts[middle].dominates(entry):
                low = middle + 1
            else:
                high = middle
        return low

    def _put(self, front: _Front, entries: Sequence[_Entry]) -> None:
        for entry in entries:
            insort(front.entries, entry)
            if entry.number not in self._taken:
                insort(front.left, entry)

    def take(self, number: int) -> None:
        """``first_left`` passes over this one; it may be added later."""
        self._taken.add(number)
        for front in self._fronts:
            for i, entry in enumerate(front.left):
                if entry.number == number:
                    del front.left[i]
                    return

    def first_left(self, k: int) -> int | None:
        """The best of the first ``k`` that was not taken."""
        for front in self._fronts:
            if k <= 0:
                return None
            if front.left:
                return front.left[0].number if bisect_left(front.entries, front.left[0]) < k else None
            k -= len(front.entries)
        return None


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))

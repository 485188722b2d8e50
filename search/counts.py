"""What became of the candidates, in numbers that always add up."""

from collections import Counter
from typing import get_args

from layersearch.search.candidate import State
from layersearch.spaces.contracts import JsonObject

__all__ = ["Counts"]


class Counts:
    """Candidates by state; rejected ones also by the name of the stage. ``asked`` is the sum of all.

    >>> counts = Counts()
    >>> counts.add("in_flight")
    >>> counts.move("in_flight", "rejected", "quality")
    >>> counts.asked, counts["rejected"], counts.rejected
    (1, 1, {'quality': 1})
    """

    def __init__(self) -> None:
        self._states: dict[str, int] = dict.fromkeys(get_args(State), 0)
        self._rejected: Counter[str] = Counter()

    def add(self, state: State, stage: str | None = None, n: int = 1) -> None:
        self._states[state] += n
        if state == "rejected":
            self._rejected[stage or ""] += n

    def move(self, before: State, after: State, stage: str | None = None) -> None:
        """One candidate goes from ``before`` (not ``rejected``) to ``after``."""
        self._states[before] -= 1
        self.add(after, stage)

    def __getitem__(self, state: State) -> int:
        return self._states[state]

    @property
    def asked(self) -> int:
        return sum(self._states.values())

    @property
    def rejected(self) -> dict[str, int]:
        """By stage name, in the order of first rejection."""
        return dict(self._rejected)

    def to_json(self) -> JsonObject:
        """``asked`` and what it is the sum of."""
        n = self._states
        return {
            "asked": self.asked,
            "screened_out": n["screened_out"],
            "duplicates": n["duplicate"],
            "rejected": self.rejected,
            "stopped": n["stopped"],
            "failed": n["failed"],
            "in_flight": n["in_flight"],
            "paused": n["paused"],
            "evaluated": n["evaluated"],
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

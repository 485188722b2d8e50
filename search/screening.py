"""Turns away what cannot work or was seen before, before it costs a training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from layersearch.spaces.contracts import Genome, Space

__all__ = ["Screener", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """``in_flight`` means that the genome passed."""

    state: Literal["screened_out", "duplicate", "in_flight"]
    key: str | None = None
    function_key: str | None = None
    novelty: str | None = None
    reason: str = ""
    duplicate_of: int | None = None


class Screener:
    """Screen and dedup over all candidates of a run, rejected and pending ones included.

    Cheapest first: static screen, structural key, numeric probe, functional key. Equal functional keys are confirmed
    by ``space.same``. What is kept per candidate is its keys; genomes are loaded where a match is to be confirmed.

    Args:
        load: the genome of an earlier candidate, by number.
    """

    def __init__(self, space: Space, load: Callable[[int], Genome]) -> None:
        self._space = space
        self._load = load
        self._by_key: dict[str, int] = {}
        self._by_function: dict[str, list[int]] = {}

    def add(self, number: int, key: str | None, function_key: str | None, duplicate_of: int | None) -> None:
        """Remembers a recorded candidate by its keys."""
        first = number if duplicate_of is None else duplicate_of
        if key is not None:
            self._by_key.setdefault(key, first)
        if function_key is not None and duplicate_of is None:
            self._by_function.setdefault(function_key, []).append(number)

    def check(self, genome: Genome, number: int) -> Verdict:
        """What is to become of ``genome``, which from now on is known as candidate ``number``."""
        verdict = self._judge(genome)
        self.add(number, verdict.key, verdict.function_key, verdict.duplicate_of)
        return verdict

    def _judge(self, genome: Genome) -> Verdict:
        outline = self._space.outline(genome)
        if outline.reason is not None:
            return Verdict("screened_out", reason=outline.reason)
        known = self._by_key.get(outline.key)
        if known is not None:
            return Verdict("duplicate", outline.key, duplicate_of=known)
        probe = self._space.probe(genome)
        if probe.reason is not None:
            return Verdict("screened_out", outline.key, reason=probe.reason)
        for other in self._by_function.get(probe.key, ()):
            if self._space.same(genome, self._load(other)):
                return Verdict("duplicate", outline.key, probe.key, probe.novelty, duplicate_of=other)
        return Verdict("in_flight", outline.key, probe.key, probe.novelty)

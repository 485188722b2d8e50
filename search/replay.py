"""What a run recorded, for another one to follow: who was asked for when, what was told when, and what came of it.

A run that was told of results in the order of their arrival cannot be repeated by its recipe alone: which worker was
faster decided what was proposed next. Its order is in its store; a replay takes turns and tells in that order, trains
everything anew, and stops where something comes out otherwise than it is recorded.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layersearch.errors import RunError, StoreError
from layersearch.search.candidate import Candidate
from layersearch.search.schedulers.base import Promotion, rung_ends
from layersearch.search.scheduling import Track
from layersearch.search.store_content import OF_OUTCOMES, comparable
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Job, Outcome, Stage

__all__ = ["DifferenceError", "Recording", "Turn"]

_REMEDY = "replay it with the versions in its environment.json on the same hardware"


class DifferenceError(RunError):
    """A replay comes to something else than is recorded."""


@dataclass(frozen=True)
class Turn:
    """A decision to begin something: a new slot or, with one, a promotion; after ``seen`` tells."""

    seen: int
    promotion: Promotion | None = None


class Recording:
    """The record of a run whose search has ended.

    Candidates that were in flight when it ended are trained as far as they were, and told of to nobody. Objectives
    that come out different each time keep the values that are recorded, or no replay could propose the same.

    Args:
        reader: of its store; stays open while it is followed.
    Raises: StoreError if the search has not ended.
    """

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self._name = reader.run_dir.name
        settings = reader.meta("run", {})
        if not settings or reader.meta("phase", "search") == "search":
            raise StoreError(
                f"a run must have ended its search to be replayed, and {self._name} has not; search resume it first"
            )
        self.follows: bool = not settings["deterministic"]
        """Whether the order has to be followed; a deterministic run keeps it by itself."""
        self._end_slot: int | None = reader.meta("end_slot")
        end_turn = reader.meta("end_turn")
        self.end_turn: int = -1 if self.follows else self._end_slot if end_turn is None else end_turn
        """Of a deterministic run: the last turn that counts."""
        self.turns: list[Turn] = []
        self._places: dict[int, int] = {}
        self._unfinished: dict[int, set[str]] = {}  # stages that were run, by slot
        self._promotions = {promotion for _, promotion in reader.promotions()}
        self._noisy = [o.name for o in reader.objectives() if o.noisy]
        self._rung_ends = rung_ends(reader.stages())
        if self.follows:
            self._read()

    def _read(self) -> None:
        promotions = dict(self._reader.promotions())
        seen = self._reader.promotions_seen() if promotions else {}
        for candidate in self._reader.candidates():
            if candidate.state in ("screened_out", "duplicate") or candidate.slot is None:
                continue
            self._take_promotions(promotions, seen)
            self.turns.append(Turn(candidate.seen))
            if candidate.told is None:
                self._unfinished[candidate.slot] = {result.stage for result in self._reader.results(candidate.number)}
            else:
                self._places[candidate.slot] = candidate.told
        self._take_promotions(promotions, seen)

    def _take_promotions(self, promotions: Mapping[int, Promotion], seen: Mapping[int, int]) -> None:
        while (turn := len(self.turns)) in promotions:
            self.turns.append(Turn(seen[turn], promotions[turn]))

    def may_begin(self, turn: int, n_heard: int, paused: Container[int]) -> bool:
        """Whether ``turn`` is next, and can be taken."""
        if turn >= len(self.turns) or self.turns[turn].seen != n_heard:
            return False
        promotion = self.turns[turn].promotion
        return promotion is None or promotion.candidate in paused

    def tells_next(self, turn: int, n_heard: int) -> bool:
        """Whether a tell comes before ``turn``."""
        return turn >= len(self.turns) or self.turns[turn].seen > n_heard

    def is_over(self, turn: int, n_heard: int) -> bool:
        """Whether all turns were taken, and all was told."""
        return turn >= len(self.turns) and n_heard >= len(self._places)

    def stages_of(self, slot: int, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Those of ``stages`` that its candidate goes through."""
        if slot not in self._unfinished:
            return stages
        return tuple(stage for stage in stages if stage.id in self._unfinished[slot])

    def finishes(self, slot: int) -> bool:
        """Whether its candidate was told of: all others were in flight, or paused, when the search ended."""
        return slot in self._places

    def place(self, slot: int) -> int:
        """Its candidate was told of after so many others."""
        return self._places[slot]

    def is_left_open(self, track: Track) -> bool:
        """Whether this is as far as the candidate came, and nothing became of it."""
        if track.order not in self._unfinished or any(stage.id not in track.done for stage in track.stages):
            return False
        rung = self._rung_ends.get(track.stages[-1].id)
        return rung is None or Promotion(track.candidate, rung) not in self._promotions

    def stuck(self) -> DifferenceError:
        return DifferenceError(
            f"the order of {self._name} must be one that can be followed, and its store holds another; replay a run "
            "whose store is as it was written"
        )

    def check_asked(self, asked: Sequence[Candidate]) -> None:
        """Raises: DifferenceError if other candidates were proposed for this slot."""
        slot = asked[0].slot
        if self._end_slot is not None and slot is not None and slot > self._end_slot:
            return
        recorded = [c for c in self._reader.numbered(asked[0].number, asked[-1].number + 1) if c.slot == slot]
        for mine, theirs in zip(asked, recorded, strict=False):
            if mine.genome != theirs.genome:
                raise DifferenceError(
                    f"candidate {mine.number} must be that of {self._name}, but another genome was proposed; {_REMEDY}"
                )
            if _fate(mine) != _fate(theirs):
                raise DifferenceError(
                    f"candidate {mine.number} must fare as in {self._name}, but is {_fate(mine)} where {_fate(theirs)} "
                    f"is recorded; {_REMEDY}"
                )
        if len(asked) != len(recorded):
            raise DifferenceError(
                f"slot {slot} must have the {len(recorded)} candidates of {self._name}, got {len(asked)}; {_REMEDY}"
            )

    def revised(self, job: Job, outcome: Outcome) -> Outcome:
        """The outcome with what is recorded of objectives that come out different each time.

        Raises: DifferenceError if anything else differs.
        """
        theirs = self._reader.outcome(job.candidate, job.stage)
        if theirs is None:
            return outcome
        kept = {name: theirs.fitness[name] for name in self._noisy if name in theirs.fitness}
        mine = replace(outcome, fitness={n: kept.get(n, value) for n, value in outcome.fitness.items()})
        for field in OF_OUTCOMES:
            found, recorded = (comparable(getattr(o, field)) for o in (mine, theirs))
            if found != recorded:
                what, found, recorded = _first_difference(field, found, recorded)
                who = f"candidate {job.candidate}" if job.candidate >= 0 else self._reader.candidate(job.candidate).name
                why = f" ({mine.reason})" if field == "state" and mine.reason else ""
                raise DifferenceError(
                    f"{who} must come out as in {self._name}, but at {job.stage} its {what} is {found!r:.60}{why} "
                    f"where {recorded!r:.60} is recorded; {_REMEDY}"
                )
        return mine


def _fate(candidate: Candidate) -> str:
    if candidate.state == "duplicate":
        return f"a duplicate of {candidate.duplicate_of}"
    return "screened out" if candidate.state == "screened_out" else "trained"


def _first_difference(field: str, found: Any, recorded: Any) -> tuple[str, Any, Any]:
    if not (isinstance(found, dict) and isinstance(recorded, dict)):
        return field, found, recorded
    name = next(n for n in (*found, *recorded) if found.get(n) != recorded.get(n))
    return f"{field} {name}", found.get(name), recorded.get(name)

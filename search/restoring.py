"""Reads from the store how far a search came, and tells and asks a new driver and scheduler what it told and asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from layersearch.search.asking import Asking
from layersearch.search.candidate import State
from layersearch.search.drivers.base import Told
from layersearch.search.schedulers.base import Standing
from layersearch.search.store import Store
from layersearch.search.turns import Ended, Turns
from layersearch.spaces.contracts import Stage

__all__ = ["Past", "past_of"]

Fitness: TypeAlias = Mapping[str, float]
Finished: TypeAlias = Callable[[int, int, State, Fitness, int, Standing], Told]
"""What the driver is told of a candidate: from slot, number, state, fitness, number of passed stages and standing."""


@dataclass(frozen=True)
class Past:
    """A search so far.

    Args:
        n_slots, n_turns: that were begun.
        n_told: finished candidates.
        turns_of_slots: turn of each slot.
        paused: turns that ended in a pause, from which the candidate was promoted.
        ended: turns whose candidates are finished, in the order in which they were.
        open_turns: slot, candidate and state of the others, by turn.
    """

    n_slots: int
    n_turns: int
    n_told: int
    turns_of_slots: Sequence[int]
    paused: Sequence[tuple[int, Ended]]
    ended: Sequence[tuple[int, Ended]]
    open_turns: Mapping[int, tuple[int, int, State]]

    def replay(self, turns: Turns, asking: Asking, reopen: Callable[[int, int, int, State], None]) -> None:
        """What was heard of before, in its order; between it, what the driver was asked, if it remembers.

        Args:
            reopen: brings a candidate that is in flight or paused to where it was, given turn, slot, number and state.
        """
        for turn, ended in self.paused:
            turns.ended(turn, ended)
        asked = asking.recorded(self.n_slots)
        if turns.deterministic:
            for turn, ended in self.ended:
                turns.ended(turn, ended)
            slot, recorded, check = next(asked, (-1, [], False))
            for turn in range(self.n_turns):
                turns.hear_due(turn)
                if recorded and self.turns_of_slots[slot] == turn:
                    asking.recall(slot, recorded, check)
                    slot, recorded, check = next(asked, (-1, [], False))
                if turn in self.open_turns:
                    reopen(turn, *self.open_turns[turn])
            return
        turns.n_evaluated += sum(ended.state == "evaluated" for _, ended in self.ended)
        n_told = 0
        for slot, recorded, check in asked:
            while turns.n_heard < recorded[0].seen:
                turns.tell(self.ended[n_told][1])
                n_told += 1
            asking.recall(slot, recorded, check)
        for turn, ended in self.ended[n_told:]:
            turns.ended(turn, ended)
        for turn in sorted(self.open_turns):
            reopen(turn, *self.open_turns[turn])


def past_of(store: Store, watches: bool, told: Finished) -> Past:
    """The search that is recorded in ``store``.

    Args:
        watches: whether what was measured is read, for a scheduler that looks at it.
    """
    promotions = store.promotions()
    promoted: dict[int, list[tuple[int, int]]] = {}  # turn and rung, by candidate
    for turn, promotion in promotions:
        promoted.setdefault(promotion.candidate, []).append((turn, promotion.rung))
    measured, stages = store.measured() if watches else {}, store.stages()
    of_promotions = {turn for turn, _ in promotions}
    paused: list[tuple[int, Ended]] = []
    arrived: list[tuple[int, int, Ended]] = []  # order of arrival and turn
    turns_of_slots: list[int] = []
    open_turns: dict[int, tuple[int, int, State]] = {}
    n_slots = n_turns = 0
    for slot, number, state, fitness, n_passed, order in store.slots():
        n_slots = slot + 1
        while n_turns in of_promotions:
            n_turns += 1
        turn, n_turns = n_turns, n_turns + 1
        turns_of_slots.append(turn)
        for later, rung in promoted.get(number, ()):
            standing = Standing(number, "", rung, _until(rung, stages, measured.get(number, {})))
            paused.append((turn, Ended(standing, "paused", None)))
            turn = later
        if state in ("evaluated", "rejected", "failed") or order is not None:
            standing = Standing(number, "", None, measured.get(number, {}))
            ended = Ended(standing, state, told(slot, number, state, fitness, n_passed, standing))
            arrived.append((-1 if order is None else order, turn, ended))
        else:
            open_turns[turn] = slot, number, state
    n_turns += len([turn for turn in of_promotions if turn >= n_turns])
    n_told = 1 + max((order for order, *_ in arrived), default=-1)
    in_order = [(turn, ended) for _, turn, ended in sorted(arrived, key=lambda row: row[:2])]
    return Past(n_slots, n_turns, n_told, turns_of_slots, paused, in_order, open_turns)


def _until(rung: int, stages: Sequence[Stage], measured: Mapping[str, Fitness]) -> dict[str, Fitness]:
    """Of what was measured of a candidate, that which was known when it waited at ``rung``."""
    end = max(i for i, stage in enumerate(stages) if stage.rung == rung)
    return {stage.id: measured[stage.id] for stage in stages[: end + 1] if stage.id in measured}

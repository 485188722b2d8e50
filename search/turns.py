"""The turns of a search: which is next, who hears when of how one has ended, and what counts towards the end."""

from collections.abc import Container
from dataclasses import dataclass

from layersearch.search.candidate import State
from layersearch.search.drivers.base import Driver, Told
from layersearch.search.replay import Recording
from layersearch.search.run_settings import RunSettings
from layersearch.search.schedulers.base import Scheduler, Standing

__all__ = ["Ended", "Turns"]


@dataclass(frozen=True)
class Ended:
    """What came of a turn: a candidate is finished (then the driver is ``told``) or paused."""

    standing: Standing
    state: State
    told: Told | None


class Turns:
    """A turn is a decision to begin something: a new slot or, if the scheduler has one, a promotion. It ends when its
    candidate is paused or finished. Without promotions turns are slots.

    Deterministic: turn k is taken when turns up to k - lookahead have ended, and the driver and the scheduler have
    heard of exactly these, in order; evaluated candidates are counted in the order of turns, too. So what is proposed,
    who is promoted, and where the run ends, does not depend on which worker was faster. Otherwise they hear in order of
    arrival; in a replay of such a run, in the recorded one.

    Attributes:
        next: the turn that is to be taken.
        frontier: the first turn that has not ended, or is not counted.
        n_heard: tells that the driver has heard.
        n_evaluated: candidates that count towards the end.
        deterministic: whether turns are.
        follows: the recording whose order is kept, in a replay of a run that was not deterministic.
    """

    def __init__(
        self, driver: Driver, scheduler: Scheduler, settings: RunSettings, recording: Recording | None = None
    ) -> None:
        self._driver = driver
        self._scheduler = scheduler
        self.deterministic = bool(settings.deterministic)
        self._wanted = settings.evaluations
        self._recording = recording
        self.follows = recording if recording is not None and recording.follows else None
        self._lookahead = settings.lookahead or 1
        self.next = 0
        self.frontier = 0
        self.n_heard = 0
        self.n_evaluated = 0
        self._ended: dict[int, Ended] = {}  # by turn: not yet heard of (deterministic)
        self._n_due = 0  # turns that were heard of (deterministic)
        self._held: dict[int, Ended] = {}  # by place in the order followed: finished before their tell is due

    def enough(self) -> bool:
        """Whether the search has as many evaluated candidates as it is to have."""
        if self._recording is not None:
            return self.follows is None and self.frontier > self._recording.end_turn
        return self._wanted is not None and self.n_evaluated >= self._wanted

    def may_begin(self, paused: Container[int]) -> bool:
        """Whether the next turn can be taken now.

        Args:
            paused: candidates that can be promoted.
        """
        if self.follows is not None:
            return self.follows.may_begin(self.next, self.n_heard, paused)
        return not self.deterministic or self.next - self._lookahead < self.frontier

    def take(self) -> None:
        """The next turn is taken."""
        self.next += 1
        self._catch_up()

    def ended(self, turn: int, ended: Ended) -> None:
        """Driver and scheduler hear of it now, or (deterministic, or in a replay) when it is due."""
        if self.follows is not None and ended.told is not None:
            self._held[self.follows.place(ended.told.slot)] = ended
            self._catch_up()
            return
        if not self.deterministic:
            self.tell(ended)
            return
        self._ended[turn] = ended
        while not self.enough() and self.frontier in self._ended:
            self.n_evaluated += self._ended[self.frontier].state == "evaluated"
            self.frontier += 1

    def hear_due(self, turn: int) -> None:
        """Deterministic: what has to be heard of before ``turn`` is taken."""
        while self.deterministic and self._n_due <= turn - self._lookahead:
            self.tell(self._ended.pop(self._n_due))
            self._n_due += 1

    def tell(self, ended: Ended) -> None:
        """Driver and scheduler hear of it now."""
        self._scheduler.heard(ended.standing, ended.state)
        if ended.told is not None:
            self._driver.tell(ended.told)
            self.n_heard += 1

    def late(self, last_turn: int, last_slot: int) -> list[int]:
        """Candidates up to ``last_slot`` that were finished by a turn after ``last_turn`` (deterministic)."""
        return [
            ended.standing.candidate
            for turn, ended in self._ended.items()
            if turn > last_turn and ended.told is not None and ended.told.slot <= last_slot
        ]

    def _catch_up(self) -> None:
        """In a replay: what has to be heard of before the next turn is taken, as far as it is there."""
        while self.follows is not None and self.n_heard in self._held:
            if not self.follows.tells_next(self.next, self.n_heard):
                return
            self.tell(self._held.pop(self.n_heard))

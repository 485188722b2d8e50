"""The search itself: asks the driver, sends what passes the screen through the stages, and tells the driver."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from layersearch.primitives.seeds import Seeds
from layersearch.search.asking import Asking
from layersearch.search.candidate import Candidate, Finish, State
from layersearch.search.clock import Clock
from layersearch.search.drivers.base import Driver, Told
from layersearch.search.replay import Recording
from layersearch.search.restoring import past_of
from layersearch.search.run_settings import RunSettings
from layersearch.search.schedulers.base import Promotion, Scheduler, Standing, rung_ends
from layersearch.search.scheduling import Dispatcher, Report, Track, finish_of, training_of
from layersearch.search.store import Store
from layersearch.search.turns import Ended, Turns
from layersearch.spaces.contracts import Genome, Space

__all__ = ["ASKED_ON_S", "Search"]

ASKED_ON_S = 0.05
"""Seconds for which the driver is asked on while jobs wait; then those that are there go to the workers.

After each slot, cheap jobs would not come together in batches; after the last, a thousand workers would wait for it.
"""


class Search:
    """A slot is one candidate that goes to the workers, with all those proposed for it in vain before.

    What happens when is a matter of ``Turns``.

    Args:
        settings: resolved.
        on_event: called after a result was recorded, and (with ``None``) after a slot was.
        recording: of the run that is replayed: its turns are taken, and its tells told, in its order, and where it
            ended is the end.
    """

    def __init__(
        self,
        space: Space,
        driver: Driver,
        scheduler: Scheduler,
        store: Store,
        dispatcher: Dispatcher,
        settings: RunSettings,
        clock: Clock,
        on_event: Callable[[Report | None], None],
        recording: Recording | None = None,
    ) -> None:
        self._space = space
        self._driver = driver
        self._scheduler = scheduler
        self._rung_ends = rung_ends(space.stages)
        self._store = store
        self._dispatcher = dispatcher
        self._settings = settings
        self._clock = clock
        self._on_event = on_event
        self._recording = recording
        self._seeds = Seeds(settings.seed)
        self._asking = Asking(space, driver, store, self._seeds)
        self._turns = Turns(driver, scheduler, settings, recording)
        self._follows = self._turns.follows
        self.counts = store.counts()
        self._slot = 0  # next to be asked for
        self._turn_of: dict[int, int] = {}  # the latest of each candidate in flight or paused
        self._paused: dict[int, Track] = {}
        self._n_told = 0  # finished candidates
        self._core_s = 0.0  # CPU time of the results so far

    def _load(self, number: int) -> Genome:
        return self._space.from_json(self._store.genome(number))

    def restore(self) -> None:
        """Brings everything to where the store says it was."""
        self._core_s = self._store.search_core_s()
        for _, promotion in self._store.promotions():
            self._scheduler.promoted(promotion)
        past = past_of(self._store, self._scheduler.watches, self._told)
        self._slot, self._turns.next, self._n_told = past.n_slots, past.n_turns, past.n_told
        past.replay(self._turns, self._asking, self._reopen)

    def _reopen(self, turn: int, slot: int, number: int, state: State) -> None:
        """Brings a candidate that is in flight or paused to where it was."""
        track = self._track(slot, self._store.candidate(number))
        track.done = {result.stage: result for result in self._store.results(number)}
        self._turn_of[number] = turn
        finish = self._settle(track)
        if finish is None:
            self._dispatcher.add(track)
            return
        if finish.state != state:  # its last result came in after an earlier end of the run
            self._store.finished(number, finish)
        else:
            self.counts.move("paused", "in_flight")
        self._finish(track, finish)

    def run(self, interrupted: Callable[[], bool]) -> bool:
        """Until the end (then true) or until ``interrupted``; either way, what was running is recorded."""
        self._clock.start()
        while not self.over() and not interrupted():
            pause_at = time.monotonic() + ASKED_ON_S
            while (goes_on := self._may_begin()) and time.monotonic() < pause_at and not interrupted():
                self._begin()
            self._dispatcher.dispatch()
            idle = self._dispatcher.idle and not goes_on
            if self._follows is not None and idle and not self.over() and not interrupted():
                raise self._follows.stuck()
            self._collect(0.0 if goes_on else self._remaining_s())
        over = self.over()
        if over:
            self._end()
        while not over and self._dispatcher.running:
            self._collect(None)
        self._clock.stop()
        return over

    def over(self) -> bool:
        if self._follows is not None:
            return self._follows.is_over(self._turns.next, self._turns.n_heard) and self._dispatcher.idle
        if self._recording is not None:
            return self._turns.enough()
        remaining_s = self._remaining_s()
        core_minutes = self._settings.core_minutes
        spent = core_minutes is not None and self._core_s >= 60 * core_minutes
        return self._turns.enough() or spent or (remaining_s is not None and remaining_s <= 0)

    def _remaining_s(self) -> float | None:
        minutes = None if self._recording is not None else self._settings.minutes
        return None if minutes is None else 60 * minutes - self._clock.elapsed_s()

    def _end(self) -> None:
        """Turns after the last counted one are as if they had never been taken (deterministic), the others stopped."""
        self._dispatcher.forget()
        end_turn = end_slot = None
        late: list[int] = []
        if self._settings.deterministic:
            end_turn = self._turns.frontier - 1
            end_slot = end_turn - sum(turn <= end_turn for turn, _ in self._store.promotions())
            late = self._turns.late(end_turn, end_slot)
        self._store.end_search(end_slot, self._clock.elapsed_s(), end_turn, late)
        self.counts = self._store.counts()
        for number, track in self._paused.items():
            standing = self._standing(track, "")
            self._driver.tell(self._told(track.order, number, "stopped", {}, _n_passed(track), standing))

    def _may_begin(self) -> bool:
        return self._dispatcher.free > 0 and self._turns.may_begin(self._paused)

    def _begin(self) -> None:
        """Takes the next turn."""
        turn = self._turns.next
        self._turns.hear_due(turn)
        promotion = self._scheduler.promote() if self._follows is None else self._follows.turns[turn].promotion
        if promotion is None:
            self._ask()
        else:
            self._promote(promotion)
        self._turns.take()

    def _promote(self, promotion: Promotion) -> None:
        """A paused candidate goes on; that is committed before it is dispatched."""
        self._store.promoted(self._turns.next, promotion, self._turns.n_heard)
        self._scheduler.promoted(promotion)
        self._turn_of[promotion.candidate] = self._turns.next
        track = self._paused.pop(promotion.candidate)
        track.over = False
        self.counts.move("paused", "in_flight")
        self._dispatcher.add(track)

    def _ask(self) -> None:
        """A new candidate begins; all that was proposed is committed before it is dispatched."""
        asked = self._asking.ask(self._slot, self._turns.n_heard)
        if self._recording is not None:
            self._recording.check_asked(asked)
        self._store.asked(asked)
        for candidate in asked:
            self.counts.add(candidate.state)
        self._turn_of[asked[-1].number] = self._turns.next
        self._dispatcher.add(self._track(self._slot, asked[-1]))
        self._slot += 1
        self._on_event(None)

    def _track(self, slot: int, candidate: Candidate) -> Track:
        stages = self._space.stages
        return Track(
            candidate.number,
            slot,
            candidate.genome,
            stages if self._follows is None else self._follows.stages_of(slot, stages),
            seed=lambda stage: self._seeds.derive("stage", slot, training_of(stage, self._space.stages)),
            settle=self._settle,
            seen=candidate.seen,
        )

    def _settle(self, track: Track) -> Finish | None:
        """Results that come in after the end finish nobody (tracks then have no stages), nor do those that come in
        together with the one that ends the search, unless slots say which was first."""
        if not track.stages or (self._turns.enough() and not self._settings.deterministic):
            return None
        if self._follows is not None and self._follows.is_left_open(track):
            return None
        finishes = self._follows is None or self._follows.finishes(track.order)
        finish = (finish_of(track, self._space.objectives) if finishes else None) or self._scheduled(track)
        if finish is not None:
            track.over = True
            if finish.state != "paused":
                place = self._n_told if self._follows is None else self._follows.place(track.order)
                finish = replace(finish, told=place)
                self._n_told += 1
            self._turns.n_evaluated += finish.state == "evaluated" and not self._settings.deterministic
        return finish

    def _scheduled(self, track: Track) -> Finish | None:
        """What the scheduler makes of a candidate that has stages to run; ``None`` if it goes on."""
        stage = next((stage for stage in reversed(track.stages) if stage.id in track.done), None)
        if stage is None:
            return None
        standing = self._standing(track, stage.id)
        if standing.rung is not None:
            ids = [s.id for s in track.stages if s.rung == standing.rung]
            for objective in self._space.objectives:
                if objective.weight and not any(objective.name in standing.measured.get(name, {}) for name in ids):
                    reason = f"'{objective.name}' was not measured at rung {standing.rung}"
                    return Finish("failed", stage.name, reason)
        decision = self._scheduler.decide(standing)
        match decision.verdict:
            case "pause":
                return Finish("paused", stage.name)
            case "stop":
                return Finish("stopped", stage.name, decision.reason)
        return None

    def _standing(self, track: Track, stage: str) -> Standing:
        measured = {
            s.id: result.outcome.fitness
            for s in track.stages
            if (result := track.done.get(s.id)) is not None and result.outcome.fitness
        }
        return Standing(track.candidate, stage, self._rung_ends.get(stage), measured, track.seen)

    def _collect(self, timeout_s: float | None) -> None:
        for report in self._dispatcher.collect(timeout_s):
            self._core_s += report.result.outcome.cpu_s
            if report.finish is not None:
                self._finish(report.track, report.finish)
            self._on_event(report)

    def _finish(self, track: Track, finish: Finish) -> None:
        """A candidate is finished, or paused at a rung."""
        self.counts.move("in_flight", finish.state, finish.stage)
        turn = self._turn_of[track.candidate]
        stage = next((stage.id for stage in reversed(track.stages) if stage.id in track.done), "")
        standing = self._standing(track, stage)
        if finish.state == "paused":
            self._paused[track.candidate] = track
            self._turns.ended(turn, Ended(standing, "paused", None))
        else:
            del self._turn_of[track.candidate]
            told = self._told(track.order, track.candidate, finish.state, finish.fitness, _n_passed(track), standing)
            self._turns.ended(turn, Ended(standing, finish.state, told))

    def _told(
        self, slot: int, number: int, state: State, fitness: Mapping[str, float], n_passed: int, standing: Standing
    ) -> Told:
        metrics: dict[str, float] = {}
        if state == "stopped":
            for stage in self._space.stages:
                metrics.update(standing.measured.get(stage.id, {}))
        return Told(slot, number, state, fitness, partial(self._load, number), n_passed, metrics=metrics)


def _n_passed(track: Track) -> int:
    return sum(result.outcome.state == "passed" for result in track.done.values())

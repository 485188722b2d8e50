"""The search itself: asks the driver, sends what passes the screen through the stages, and tells the driver."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from layersearch.errors import RunError
from layersearch.primitives.seeds import Seeds
from layersearch.search.candidate import Candidate, Finish, State
from layersearch.search.drivers.base import Driver, RememberingDriver, Told
from layersearch.search.replay import Recording
from layersearch.search.run_settings import RunSettings
from layersearch.search.schedulers.base import Promotion, Scheduler, Standing, rung_ends
from layersearch.search.scheduling import Dispatcher, Report, Track, finish_of, training_of
from layersearch.search.screening import Screener
from layersearch.search.store import Store
from layersearch.spaces.contracts import Genome, Space

__all__ = ["ASKED_ON_S", "CHECKED_SLOTS", "MOST_PROPOSALS", "Clock", "Search"]

ASKED_ON_S = 0.05
"""Seconds for which the driver is asked on while jobs wait; then those that are there go to the workers.

After each slot, cheap jobs would not come together in batches; after the last, a thousand workers would wait for it.
"""

MOST_PROPOSALS = 10_000
"""Proposals for one slot, none of which is legal and new, before the run gives up."""

CHECKED_SLOTS = 64
"""Slots that a driver which remembers works out again on resume, evenly spread, the last one among them.

Each takes as long as it did: all of 1,000 TPE suggestions are a core-minute, of 5,000 more than half an hour.
"""


class Clock:
    """Seconds of the search, summed over resumes; stands still until ``start``."""

    def __init__(self, before_s: float) -> None:
        self._before_s = before_s
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.monotonic()

    def stop(self) -> None:
        self._before_s, self._since = self.elapsed_s(), None

    def elapsed_s(self) -> float:
        return self._before_s + (0.0 if self._since is None else time.monotonic() - self._since)


@dataclass(frozen=True)
class _Ended:
    """What came of a turn: a candidate is finished (then the driver is ``told``) or paused."""

    standing: Standing
    state: State
    told: Told | None


class Search:
    """A slot is one candidate that goes to the workers, with all those proposed for it in vain before.

    A turn is a decision to begin something: a new slot or, if the scheduler has one, a promotion. It ends when its
    candidate is paused or finished. Without promotions turns are slots.

    Deterministic: turn k is taken when turns up to k - lookahead have ended, and the driver and the scheduler have
    heard of exactly these, in order; evaluated candidates are counted in the order of turns, too. So what is proposed,
    who is promoted, and where the run ends, does not depend on which worker was faster. Otherwise they hear in order of
    arrival.

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
        self._follows = recording if recording is not None and recording.follows else None
        self._held: dict[int, _Ended] = {}  # finished before their tell is due, by its place in the order followed
        self._seeds = Seeds(settings.seed)
        self._screener = Screener(space, self._load)
        self._lookahead = settings.lookahead or 1
        self.counts = store.counts()
        self._number = 0  # of the next candidate
        self._slot = 0  # next to be asked
        self._turn = 0  # next to be taken
        self._frontier = 0  # first turn that has not ended, or is not counted
        self._ended: dict[int, _Ended] = {}  # by turn: not yet heard of
        self._n_due = 0  # turns that were heard of (deterministic)
        self._turns: dict[int, int] = {}  # the latest of each candidate in flight or paused
        self._paused: dict[int, Track] = {}
        self._n_heard = 0  # tells that the driver has heard
        self._n_told = 0  # finished candidates
        self._core_s = 0.0  # CPU time of the results so far
        self._n_evaluated = 0  # those that count towards the end

    def _load(self, number: int) -> Genome:
        return self._space.from_json(self._store.genome(number))

    def restore(self) -> None:
        """Brings everything to where the store says it was."""
        for number, key, function_key, duplicate_of in self._store.known_keys():
            self._screener.add(number, key, function_key, duplicate_of)
            self._number = number + 1
        self._core_s = self._store.search_core_s()
        promotions = self._store.promotions()
        promoted: dict[int, list[tuple[int, int]]] = {}  # turn and rung, by candidate
        for turn, promotion in promotions:
            self._scheduler.promoted(promotion)
            promoted.setdefault(promotion.candidate, []).append((turn, promotion.rung))
        measured = self._store.measured() if self._scheduler.watches else {}
        of_promotions = {turn for turn, _ in promotions}
        arrived: list[tuple[int, int, _Ended]] = []  # order of arrival and turn
        begun: list[int] = []  # turn of each slot
        open_turns: dict[int, tuple[int, int, State]] = {}
        for slot, number, state, fitness, n_passed, order in self._store.slots():
            self._slot = slot + 1
            while self._turn in of_promotions:
                self._turn += 1
            turn, self._turn = self._turn, self._turn + 1
            begun.append(turn)
            for later, rung in promoted.get(number, ()):
                self._hear(turn, _Ended(Standing(number, "", rung, measured.get(number, {})), "paused", None))
                turn = later
            if state in ("evaluated", "rejected", "failed") or order is not None:
                standing = Standing(number, "", None, measured.get(number, {}))
                told = self._told(slot, number, state, fitness, n_passed, standing)
                arrived.append((-1 if order is None else order, turn, _Ended(standing, state, told)))
            else:
                open_turns[turn] = slot, number, state
        self._turn += len([turn for turn in of_promotions if turn >= self._turn])
        self._n_told = 1 + max((order for order, *_ in arrived), default=-1)
        told_before = [(turn, ended) for _, turn, ended in sorted(arrived, key=lambda row: row[:2])]
        self._replay(told_before, begun, open_turns)

    def _reopen(self, turn: int, slot: int, number: int, state: State) -> None:
        """Brings a candidate that is in flight or paused to where it was."""
        track = self._track(slot, self._store.candidate(number))
        track.done = {result.stage: result for result in self._store.results(number)}
        self._turns[number] = turn
        finish = self._settle(track)
        if finish is None:
            self._dispatcher.add(track)
            return
        if finish.state != state:  # its last result came in after an earlier end of the run
            self._store.finished(number, finish)
        else:
            self.counts.move("paused", "in_flight")
        self._finish(track, finish)

    def _replay(
        self,
        arrived: Sequence[tuple[int, _Ended]],
        begun: Sequence[int],
        open_turns: Mapping[int, tuple[int, int, State]],
    ) -> None:
        """What was heard of before, in its order; between it, what the driver was asked, if it remembers."""
        if self._settings.deterministic:
            for turn, ended in arrived:
                self._hear(turn, ended)
            asked = self._recorded()
            slot, recorded, check = next(asked, (-1, [], False))
            for turn in range(self._turn):
                self._hear_due(turn)
                if recorded and begun[slot] == turn:
                    self._recall(slot, recorded, check)
                    slot, recorded, check = next(asked, (-1, [], False))
                if turn in open_turns:
                    self._reopen(turn, *open_turns[turn])
            return
        self._n_evaluated += sum(ended.state == "evaluated" for _, ended in arrived)
        n_told = 0
        for slot, recorded, check in self._recorded():
            while self._n_heard < recorded[0].seen:
                self._tell(arrived[n_told][1])
                n_told += 1
            self._recall(slot, recorded, check)
        for turn, ended in arrived[n_told:]:
            self._hear(turn, ended)
        for turn in sorted(open_turns):
            self._reopen(turn, *open_turns[turn])

    def _recorded(self) -> Iterator[tuple[int, list[Candidate], bool]]:
        """Slot, candidates and whether to check it, of all that a driver which remembers was asked."""
        if isinstance(self._driver, RememberingDriver):
            apart = max(1, -(-self._slot // CHECKED_SLOTS))
            for slot, candidates in itertools.groupby(self._store.candidates(), key=lambda c: c.slot or 0):
                yield slot, list(candidates), (self._slot - 1 - slot) % apart == 0

    def _recall(self, slot: int, recorded: Sequence[Candidate], check: bool) -> None:
        assert isinstance(self._driver, RememberingDriver)
        asked = [
            Told(slot, c.number, c.state, {}, partial(self._space.from_json, c.genome), duplicate_of=c.duplicate_of)
            for c in recorded
        ]
        self._driver.recall(slot, self._seeds.stream("driver", slot), asked, check)

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
            return self._follows.is_over(self._turn, self._n_heard) and self._dispatcher.idle
        if self._recording is not None:
            return self._enough()
        remaining_s = self._remaining_s()
        core_minutes = self._settings.core_minutes
        spent = core_minutes is not None and self._core_s >= 60 * core_minutes
        return self._enough() or spent or (remaining_s is not None and remaining_s <= 0)

    def _enough(self) -> bool:
        if self._recording is not None:
            return self._follows is None and self._frontier > self._recording.end_turn
        return self._settings.evaluations is not None and self._n_evaluated >= self._settings.evaluations

    def _remaining_s(self) -> float | None:
        minutes = None if self._recording is not None else self._settings.minutes
        return None if minutes is None else 60 * minutes - self._clock.elapsed_s()

    def _end(self) -> None:
        """Turns after the last counted one are as if they had never been taken (deterministic), the others stopped."""
        self._dispatcher.forget()
        end_turn = end_slot = None
        late: list[int] = []
        if self._settings.deterministic:
            end_turn = self._frontier - 1
            end_slot = end_turn - sum(turn <= end_turn for turn, _ in self._store.promotions())
            late = [
                ended.standing.candidate
                for turn, ended in self._ended.items()
                if turn > end_turn and ended.told is not None and ended.told.slot <= end_slot
            ]
        self._store.end_search(end_slot, self._clock.elapsed_s(), end_turn, late)
        self.counts = self._store.counts()
        for number, track in self._paused.items():
            standing = self._standing(track, "")
            self._driver.tell(self._told(track.order, number, "stopped", {}, _n_passed(track), standing))

    def _may_begin(self) -> bool:
        if self._dispatcher.free <= 0:
            return False
        if self._follows is not None:
            return self._follows.may_begin(self._turn, self._n_heard, self._paused)
        return not self._settings.deterministic or self._turn - self._lookahead < self._frontier

    def _begin(self) -> None:
        """Takes the next turn."""
        self._hear_due(self._turn)
        promotion = self._scheduler.promote() if self._follows is None else self._follows.turns[self._turn].promotion
        if promotion is None:
            self._ask()
        else:
            self._promote(promotion)
        self._turn += 1
        self._catch_up()

    def _promote(self, promotion: Promotion) -> None:
        """A paused candidate goes on; that is committed before it is dispatched."""
        self._store.promoted(self._turn, promotion, self._n_heard)
        self._scheduler.promoted(promotion)
        self._turns[promotion.candidate] = self._turn
        track = self._paused.pop(promotion.candidate)
        track.over = False
        self.counts.move("paused", "in_flight")
        self._dispatcher.add(track)

    def _ask(self) -> None:
        """Proposals for the next slot until one is legal and new; all are committed before it is dispatched."""
        slot = self._slot
        asked: list[Candidate] = []
        for proposal in self._driver.ask(slot, self._seeds.stream("driver", slot)):
            number = self._number + len(asked)
            verdict = self._screener.check(proposal.genome, number)
            passed = verdict.state == "in_flight"
            asked.append(
                Candidate(
                    number,
                    slot,
                    proposal.origin,
                    self._space.to_json(proposal.genome),
                    verdict.key,
                    verdict.function_key,
                    verdict.novelty,
                    proposal.parents,
                    verdict.state,
                    reason=verdict.reason,
                    duplicate_of=verdict.duplicate_of,
                    known_as=self._space.known_as(proposal.genome) if passed else None,
                    name=proposal.name,
                    seen=self._n_heard,
                )
            )
            if passed:
                break
            if isinstance(self._driver, RememberingDriver):
                load = partial(_itself, proposal.genome)
                told = Told(slot, number, verdict.state, {}, load, duplicate_of=verdict.duplicate_of)
                self._driver.turned_away(told)
            if len(asked) >= MOST_PROPOSALS:
                raise RunError(
                    f"a proposal must be legal and new, but {MOST_PROPOSALS} in a row for slot {slot} were not: the "
                    "space seems exhausted; ask for fewer evaluations or widen the space"
                )
        if self._recording is not None:
            self._recording.check_asked(asked)
        self._store.asked(asked)
        for candidate in asked:
            self.counts.add(candidate.state)
        self._number += len(asked)
        self._slot += 1
        self._turns[asked[-1].number] = self._turn
        self._dispatcher.add(self._track(slot, asked[-1]))
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
        if not track.stages or (self._enough() and not self._settings.deterministic):
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
            self._n_evaluated += finish.state == "evaluated" and not self._settings.deterministic
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
        turn = self._turns[track.candidate]
        stage = next((stage.id for stage in reversed(track.stages) if stage.id in track.done), "")
        standing = self._standing(track, stage)
        if finish.state == "paused":
            self._paused[track.candidate] = track
            self._hear(turn, _Ended(standing, "paused", None))
        else:
            del self._turns[track.candidate]
            told = self._told(track.order, track.candidate, finish.state, finish.fitness, _n_passed(track), standing)
            self._hear(turn, _Ended(standing, finish.state, told))

    def _told(
        self, slot: int, number: int, state: State, fitness: Mapping[str, float], n_passed: int, standing: Standing
    ) -> Told:
        metrics: dict[str, float] = {}
        if state == "stopped":
            for stage in self._space.stages:
                metrics.update(standing.measured.get(stage.id, {}))
        return Told(slot, number, state, fitness, partial(self._load, number), n_passed, metrics=metrics)

    def _hear(self, turn: int, ended: _Ended) -> None:
        """A turn has ended: driver and scheduler hear of it now, or (deterministic, or in a replay) when it is due."""
        if self._follows is not None and ended.told is not None:
            self._held[self._follows.place(ended.told.slot)] = ended
            self._catch_up()
            return
        if not self._settings.deterministic:
            self._tell(ended)
            return
        self._ended[turn] = ended
        while not self._enough() and self._frontier in self._ended:
            self._n_evaluated += self._ended[self._frontier].state == "evaluated"
            self._frontier += 1

    def _catch_up(self) -> None:
        """In a replay: what has to be heard of before the next turn is taken, as far as it is there."""
        while self._follows is not None and self._n_heard in self._held:
            if not self._follows.tells_next(self._turn, self._n_heard):
                return
            self._tell(self._held.pop(self._n_heard))

    def _hear_due(self, turn: int) -> None:
        """Deterministic: what has to be heard of before ``turn`` is taken."""
        while self._settings.deterministic and self._n_due <= turn - self._lookahead:
            self._tell(self._ended.pop(self._n_due))
            self._n_due += 1

    def _tell(self, ended: _Ended) -> None:
        self._scheduler.heard(ended.standing, ended.state)
        if ended.told is not None:
            self._driver.tell(ended.told)
            self._n_heard += 1


def _n_passed(track: Track) -> int:
    return sum(result.outcome.state == "passed" for result in track.done.values())


def _itself(genome: Genome) -> Genome:
    return genome

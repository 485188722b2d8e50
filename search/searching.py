"""The search itself: asks the driver, sends what passes the screen through the stages, and tells the driver."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from layersearch.errors import RunError
from layersearch.primitives.seeds import Seeds
from layersearch.search.candidate import Candidate, Finish, State
from layersearch.search.drivers.base import Driver, RememberingDriver, Told
from layersearch.search.run_settings import RunSettings
from layersearch.search.scheduling import Dispatcher, Report, Track, finish_of, training_of
from layersearch.search.screening import Screener
from layersearch.search.store import Store
from layersearch.spaces.contracts import Genome, Space

__all__ = ["CHECKED_SLOTS", "MOST_PROPOSALS", "Clock", "Search"]

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


class Search:
    """A slot is one candidate that goes to the workers, with all those proposed for it in vain before.

    Deterministic: slot k is asked when slots up to k - lookahead are finished, and the driver has been told exactly
    these, in slot order; evaluated candidates are counted in slot order, too. So what is proposed, and where the run
    ends, does not depend on which worker was faster. Otherwise the driver is told in order of arrival.

    Args:
        settings: resolved.
        on_event: called after a result was recorded, and (with ``None``) after a slot was.
    """

    def __init__(
        self,
        space: Space,
        driver: Driver,
        store: Store,
        dispatcher: Dispatcher,
        settings: RunSettings,
        clock: Clock,
        on_event: Callable[[Report | None], None],
    ) -> None:
        self._space = space
        self._driver = driver
        self._store = store
        self._dispatcher = dispatcher
        self._settings = settings
        self._clock = clock
        self._on_event = on_event
        self._seeds = Seeds(settings.seed)
        self._screener = Screener(space, self._load)
        self._lookahead = settings.lookahead or 1
        self.counts = store.counts()
        self._number = 0  # of the next candidate
        self._slot = 0  # next to be asked
        self._frontier = 0  # first slot that is not finished, or not counted
        self._finished: dict[int, Told] = {}  # by slot: not yet told to the driver
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
        arrived: list[tuple[int, Told]] = []
        open_slots: list[tuple[int, int]] = []
        for slot, number, state, fitness, n_passed, order in self._store.slots():
            self._slot = slot + 1
            if state in ("evaluated", "rejected", "failed"):
                arrived.append((-1 if order is None else order, self._told(slot, number, state, fitness, n_passed)))
            elif state == "in_flight":
                open_slots.append((slot, number))
        self._n_told = 1 + max((order for order, _ in arrived), default=-1)
        self._replay([told for _, told in sorted(arrived, key=lambda pair: pair[0])])
        for slot, number in open_slots:
            track = self._track(slot, self._store.candidate(number))
            track.done = {result.stage: result for result in self._store.results(number)}
            finish = self._settle(track)
            if finish is None:
                self._dispatcher.add(track)
            else:  # its last result came in after an earlier end of the run
                self._store.finished(number, finish)
                self._finish(track, finish)

    def _replay(self, arrived: Sequence[Told]) -> None:
        """What the driver heard before, in the order of arrival; between it, what it was asked, if it remembers."""
        if self._settings.deterministic:
            for told in arrived:
                self._hear(told)
            for slot, recorded, check in self._recorded():
                self._tell_due(slot)
                self._recall(slot, recorded, check)
            return
        self._n_evaluated += sum(told.state == "evaluated" for told in arrived)
        for slot, recorded, check in self._recorded():
            while self._n_heard < recorded[0].seen:
                self._tell(arrived[self._n_heard])
            self._recall(slot, recorded, check)
        while self._n_heard < len(arrived):
            self._tell(arrived[self._n_heard])

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
            while self._dispatcher.free > 0 and self._may_ask() and not interrupted():
                self._ask()
            self._dispatcher.dispatch()
            self._collect(self._remaining_s())
        over = self.over()
        if over:
            self._end()
        while not over and self._dispatcher.running:
            self._collect(None)
        self._clock.stop()
        return over

    def over(self) -> bool:
        remaining_s = self._remaining_s()
        core_minutes = self._settings.core_minutes
        spent = core_minutes is not None and self._core_s >= 60 * core_minutes
        return self._enough() or spent or (remaining_s is not None and remaining_s <= 0)

    def _enough(self) -> bool:
        return self._settings.evaluations is not None and self._n_evaluated >= self._settings.evaluations

    def _remaining_s(self) -> float | None:
        minutes = self._settings.minutes
        return None if minutes is None else 60 * minutes - self._clock.elapsed_s()

    def _end(self) -> None:
        """Slots after the last counted one are as if they had never been asked (deterministic), the others stopped."""
        self._dispatcher.forget()
        end_slot = self._frontier - 1 if self._settings.deterministic else None
        self._store.end_search(end_slot, self._clock.elapsed_s())
        self.counts = self._store.counts()

    def _may_ask(self) -> bool:
        return not self._settings.deterministic or self._slot - self._lookahead < self._frontier

    def _ask(self) -> None:
        """Proposals for the next slot until one is legal and new; all are committed before it is dispatched."""
        slot = self._slot
        if self._settings.deterministic:
            self._tell_due(slot)
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
        self._store.asked(asked)
        for candidate in asked:
            self.counts.add(candidate.state)
        self._number += len(asked)
        self._slot += 1
        self._dispatcher.add(self._track(slot, asked[-1]))
        self._on_event(None)

    def _track(self, slot: int, candidate: Candidate) -> Track:
        return Track(
            candidate.number,
            slot,
            candidate.genome,
            self._space.stages,
            seed=lambda stage: self._seeds.derive("stage", slot, training_of(stage, self._space.stages)),
            settle=self._settle,
        )

    def _settle(self, track: Track) -> Finish | None:
        """Results that come in after the end finish nobody (tracks then have no stages), nor do those that come in
        together with the one that ends the search, unless slots say which was first."""
        if not track.stages or (self._enough() and not self._settings.deterministic):
            return None
        finish = finish_of(track, self._space.objectives, self._n_told)
        if finish is not None:
            self._n_told += 1
            self._n_evaluated += finish.state == "evaluated" and not self._settings.deterministic
        return finish

    def _collect(self, timeout_s: float | None) -> None:
        for report in self._dispatcher.collect(timeout_s):
            self._core_s += report.result.outcome.cpu_s
            if report.finish is not None:
                self._finish(report.track, report.finish)
            self._on_event(report)

    def _finish(self, track: Track, finish: Finish) -> None:
        self.counts.move("in_flight", finish.state, finish.stage)
        n_passed = sum(result.outcome.state == "passed" for result in track.done.values())
        self._hear(self._told(track.order, track.candidate, finish.state, finish.fitness, n_passed))

    def _told(self, slot: int, number: int, state: State, fitness: Mapping[str, float], n_passed: int) -> Told:
        return Told(slot, number, state, fitness, partial(self._load, number), n_passed)

    def _hear(self, told: Told) -> None:
        """A finished candidate: the driver hears of it now, or (deterministic) when its slot is due."""
        if not self._settings.deterministic:
            self._tell(told)
            return
        self._finished[told.slot] = told
        while not self._enough() and self._frontier in self._finished:
            self._n_evaluated += self._finished[self._frontier].state == "evaluated"
            self._frontier += 1

    def _tell_due(self, slot: int) -> None:
        """Deterministic: what the driver has to have heard before ``slot`` is asked."""
        while self._n_heard <= slot - self._lookahead:
            self._tell(self._finished.pop(self._n_heard))

    def _tell(self, told: Told) -> None:
        self._driver.tell(told)
        self._n_heard += 1


def _itself(genome: Genome) -> Genome:
    return genome

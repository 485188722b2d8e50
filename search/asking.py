"""What the driver is asked: for proposals until one is legal and new; on resume, for those that it made before."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

from layersearch.errors import RunError
from layersearch.primitives.seeds import Seeds
from layersearch.search.candidate import Candidate
from layersearch.search.drivers.base import Driver, Proposal, RememberingDriver, Told
from layersearch.search.screening import Screener
from layersearch.search.store import Store
from layersearch.spaces.contracts import Genome, Space

__all__ = ["CHECKED_SLOTS", "MOST_PROPOSALS", "Asking"]

MOST_PROPOSALS = 10_000
"""Proposals for one slot, none of which is legal and new, before the run gives up."""

CHECKED_SLOTS = 64
"""Slots that a driver which remembers works out again on resume, evenly spread, the last one among them.

Each takes as long as it did: all of 1,000 TPE suggestions are a core-minute, of 5,000 more than half an hour.
"""


class Asking:
    """Asks ``driver``, each slot with random numbers of its own, and screens what it proposes.

    Args:
        store: whose candidates are known to the screen.
        seeds: of the run.
    """

    def __init__(self, space: Space, driver: Driver, store: Store, seeds: Seeds) -> None:
        self._space = space
        self._driver = driver
        self._store = store
        self._seeds = seeds
        self._screener = Screener(space, lambda number: space.from_json(store.genome(number)))
        self._number = 0  # of the next candidate
        for number, key, function_key, duplicate_of in store.known_keys():
            self._screener.add(number, key, function_key, duplicate_of)
            self._number = number + 1

    def ask(self, slot: int, seen: int) -> list[Candidate]:
        """Proposals for ``slot`` until one is legal and new; that is the last.

        Args:
            seen: tells that the driver has heard.
        Raises: RunError if there is no such proposal among the first ``MOST_PROPOSALS``.
        """
        asked: list[Candidate] = []
        for proposal in self._driver.ask(slot, self._seeds.stream("driver", slot)):
            candidate = self._screened(proposal, slot, seen)
            asked.append(candidate)
            if candidate.state == "in_flight":
                break
            if isinstance(self._driver, RememberingDriver):
                load = partial(_itself, proposal.genome)
                told = Told(slot, candidate.number, candidate.state, {}, load, duplicate_of=candidate.duplicate_of)
                self._driver.turned_away(told)
            if len(asked) >= MOST_PROPOSALS:
                raise RunError(
                    f"a proposal must be legal and new, but {MOST_PROPOSALS} in a row for slot {slot} were not: the "
                    "space seems exhausted; ask for fewer evaluations or widen the space"
                )
        return asked

    def _screened(self, proposal: Proposal, slot: int, seen: int) -> Candidate:
        number, self._number = self._number, self._number + 1
        verdict = self._screener.check(proposal.genome, number)
        return Candidate(
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
            known_as=self._space.known_as(proposal.genome) if verdict.state == "in_flight" else None,
            name=proposal.name,
            seen=seen,
        )

    def recorded(self, n_slots: int) -> Iterator[tuple[int, list[Candidate], bool]]:
        """Slot, candidates and whether to check it, of all ``n_slots`` that a driver which remembers was asked for."""
        if isinstance(self._driver, RememberingDriver):
            apart = max(1, -(-n_slots // CHECKED_SLOTS))
            for slot, candidates in itertools.groupby(self._store.candidates(), key=lambda c: c.slot or 0):
                yield slot, list(candidates), (n_slots - 1 - slot) % apart == 0

    def recall(self, slot: int, recorded: Sequence[Candidate], check: bool) -> None:
        """Asks a driver that remembers for what is ``recorded`` of ``slot``. Raises: StoreError if it differs."""
        assert isinstance(self._driver, RememberingDriver), "nothing is recorded for another"
        asked = [
            Told(slot, c.number, c.state, {}, partial(self._space.from_json, c.genome), duplicate_of=c.duplicate_of)
            for c in recorded
        ]
        self._driver.recall(slot, self._seeds.stream("driver", slot), asked, check)


def _itself(genome: Genome) -> Genome:
    return genome

"""What every driver promises; a new one is picked up from the registry."""

import random
from collections.abc import Iterator
from itertools import islice

import pytest
from toy_space import ToySpace

from layersearch.errors import RecipeError
from layersearch.primitives.seeds import Seeds
from layersearch.search.drivers.base import DRIVERS, Driver, Proposal, RememberingDriver, Told

POPULATION = 8
N_SLOTS = 20
SPACE = ToySpace()


def make(driver: str) -> Driver:
    return DRIVERS[driver](SPACE, POPULATION, {})


def told(slot: int, genome: int) -> Told:
    state = "rejected" if genome % 5 == 1 else "evaluated"
    fitness = {"o0": -abs(genome - 300) / 300, "o1": (genome % 13) / 13} if state == "evaluated" else {}
    return Told(slot, 10 * slot, state, fitness, lambda: genome)


def away(slot: int, i: int, genome: int) -> Told:
    """The first proposal of a slot is screened out, the second one a duplicate of it."""
    number = 10 * slot - 2 + i
    return Told(slot, number, "duplicate" if i else "screened_out", {}, lambda: genome, 0, number - 1 if i else None)


def played(driver: Driver, n_slots: int, seed: int, tells: list[list[Told]] | None = None) -> list[list[Proposal]]:
    """Proposals of each slot; the driver hears of the third one of each, and of the others if it wants to."""
    slots = []
    for slot in range(n_slots):
        asked: list[Proposal] = []
        for i, proposal in enumerate(driver.ask(slot, Seeds(seed).stream("driver", slot))):
            asked.append(proposal)
            if i == 2:
                break
            if isinstance(driver, RememberingDriver):
                driver.turned_away(away(slot, i, proposal.genome))
        slots.append(asked)
        driver.tell(told(slot, asked[2].genome))
        if tells is not None:
            tells.append([away(slot, i, p.genome) for i, p in enumerate(asked[:2])] + [told(slot, asked[2].genome)])
    return slots


@pytest.fixture(params=list(DRIVERS))
def driver(request: pytest.FixtureRequest) -> Iterator[str]:
    state = random.getstate()
    yield request.param
    assert random.getstate() == state, "the global generator was touched"


def test_same_seed_same_proposals_and_another_seed_others(driver: str) -> None:
    a, b, c = (played(make(driver), N_SLOTS, seed) for seed in (1, 1, 2))
    assert a == b
    assert a != c


def test_replayed_tells_give_the_same_state(driver: str) -> None:
    tells: list[list[Told]] = []
    first = make(driver)
    played(first, N_SLOTS, 1, tells)
    second = make(driver)
    for slot, recorded in enumerate(tells):
        if isinstance(second, RememberingDriver):
            second.recall(slot, Seeds(1).stream("driver", slot), recorded, check=slot % 2 == 0)
        second.tell(recorded[2])
    for slot in (N_SLOTS, N_SLOTS + 1):
        asked = [list(islice(d.ask(slot, random.Random(slot)), 70)) for d in (first, second)]
        assert asked[0] == asked[1]


def test_asking_changes_nothing(driver: str) -> None:
    one = make(driver)
    if isinstance(one, RememberingDriver):
        pytest.skip("remembers what it was asked")
    played(one, 30, 1)
    before = list(islice(one.ask(30, random.Random(0)), 50))
    list(islice(one.ask(31, random.Random(9)), 50))
    assert list(islice(one.ask(30, random.Random(0)), 50)) == before


def test_proposals_are_legal_and_never_end(driver: str) -> None:
    for slot in played(make(driver), N_SLOTS, 5):
        for proposal in slot:
            assert SPACE.from_json(SPACE.to_json(proposal.genome)) == proposal.genome
            assert proposal.origin in ("seed", "random", "evolved", "suggested")
            assert bool(proposal.parents) == (proposal.origin == "evolved")
    assert len(list(islice(make(driver).ask(0, random.Random(0)), 200))) == 200


def test_known_layers_come_first_and_are_a_quarter_at_most(driver: str) -> None:
    slots = played(make(driver), 20, 1)
    assert [slot[0].name for slot in slots if slot[0].origin == "seed"] == ["ten", "eleven"]
    assert [slot[0].origin == "seed" for slot in slots[:3]] == [True, True, False]
    assert all(p.origin != "seed" for slot in slots for p in slot[1:])
    few = DRIVERS[driver](SPACE, 3, {})
    assert next(iter(few.ask(0, random.Random(0)))).origin != "seed"


def test_unknown_and_illegal_knobs_are_refused(driver: str) -> None:
    with pytest.raises(RecipeError, match=r"'driver\.p_randon'"):
        DRIVERS[driver](SPACE, 8, {"p_randon": 0.5})
    with pytest.raises(RecipeError):
        DRIVERS[driver](SPACE, 8, {"p_random": float("nan")})

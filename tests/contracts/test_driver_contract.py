"""What every driver promises; a new one is picked up from the registry."""

import random
from collections.abc import Iterator
from itertools import islice

import pytest
from toy_space import ToySpace

from layersearch.errors import RecipeError
from layersearch.primitives.seeds import Seeds
from layersearch.search.drivers.base import DRIVERS, Driver, Proposal, Told

POPULATION = 8
SPACE = ToySpace()


def make(driver: str) -> Driver:
    return DRIVERS[driver](SPACE, POPULATION, {})


def told(slot: int, genome: int) -> Told:
    state = "rejected" if genome % 5 == 1 else "evaluated"
    fitness = {"o0": -abs(genome - 300) / 300, "o1": (genome % 13) / 13} if state == "evaluated" else {}
    return Told(slot, 10 * slot, state, fitness, lambda: genome)


def played(driver: Driver, n_slots: int, seed: int, tells: list[Told] | None = None) -> list[list[Proposal]]:
    """Proposals of each slot; the driver hears of the third one of each."""
    slots = []
    for slot in range(n_slots):
        slots.append(list(islice(driver.ask(slot, Seeds(seed).stream("driver", slot)), 3)))
        result = told(slot, slots[-1][2].genome)
        driver.tell(result)
        if tells is not None:
            tells.append(result)
    return slots


@pytest.fixture(params=list(DRIVERS))
def driver(request: pytest.FixtureRequest) -> Iterator[str]:
    state = random.getstate()
    yield request.param
    assert random.getstate() == state, "the global generator was touched"


def test_same_seed_same_proposals_and_another_seed_others(driver: str) -> None:
    a, b, c = (played(make(driver), 40, seed) for seed in (1, 1, 2))
    assert a == b
    assert a != c


def test_replayed_tells_give_the_same_state(driver: str) -> None:
    tells: list[Told] = []
    first = make(driver)
    played(first, 40, 1, tells)
    second = make(driver)
    for result in tells:
        second.tell(result)
    for slot in (40, 41):
        asked = [list(islice(d.ask(slot, random.Random(slot)), 70)) for d in (first, second)]
        assert asked[0] == asked[1]


def test_asking_changes_nothing(driver: str) -> None:
    one = make(driver)
    played(one, 30, 1)
    before = list(islice(one.ask(30, random.Random(0)), 50))
    list(islice(one.ask(31, random.Random(9)), 50))
    assert list(islice(one.ask(30, random.Random(0)), 50)) == before


def test_proposals_are_legal_and_never_end(driver: str) -> None:
    for slot in played(make(driver), 40, 5):
        for proposal in slot:
            assert SPACE.from_json(SPACE.to_json(proposal.genome)) == proposal.genome
            assert proposal.origin in ("seed", "random", "evolved")
            assert bool(proposal.parents) == (proposal.origin == "evolved")
    assert len(list(islice(make(driver).ask(0, random.Random(0)), 200))) == 200


def test_known_layers_come_first_and_are_a_quarter_at_most(driver: str) -> None:
    slots = played(make(driver), 20, 1)
    assert [slot[0].name for slot in slots if slot[0].origin == "seed"] == ["ten", "eleven"]
    assert [slot[0].origin for slot in slots[:3]] == ["seed", "seed", "random"]
    assert all(p.origin != "seed" for slot in slots for p in slot[1:])
    few = DRIVERS[driver](SPACE, 3, {})
    assert next(iter(few.ask(0, random.Random(0)))).origin != "seed"


def test_unknown_and_illegal_knobs_are_refused(driver: str) -> None:
    with pytest.raises(RecipeError, match=r"'driver\.p_randon'"):
        DRIVERS[driver](SPACE, 8, {"p_randon": 0.5})
    with pytest.raises(RecipeError):
        DRIVERS[driver](SPACE, 8, {"p_random": float("nan")})

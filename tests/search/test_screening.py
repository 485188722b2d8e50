"""Screen and dedup: cheapest first, over everything that was ever proposed, and the same after a resume."""

import random

import pytest
from toy_space import ToySpace

from layersearch.search.screening import Screener
from layersearch.spaces.contracts import Outline, Probe


class Watched(ToySpace):
    """Counts how often each question is asked."""

    def __init__(self) -> None:
        super().__init__(size=100)
        self.asked = {"outline": 0, "probe": 0, "same": 0}

    def outline(self, genome: int) -> Outline:
        self.asked["outline"] += 1
        return super().outline(genome)

    def probe(self, genome: int) -> Probe:
        self.asked["probe"] += 1
        return super().probe(genome)

    def same(self, a: int, b: int) -> bool:
        self.asked["same"] += 1
        return super().same(a, b)


class Colliding(ToySpace):
    """All functional keys are equal, few functions are."""

    def probe(self, genome: int) -> Probe:
        return Probe("all", "all")


def test_each_way_of_being_turned_away() -> None:
    space, genomes = Watched(), [7, 8, 8, 108, 108, 5, 5, 9]
    screener = Screener(space, genomes.__getitem__)
    verdicts = [screener.check(genome, number) for number, genome in enumerate(genomes)]
    assert [(v.state, v.duplicate_of, v.reason) for v in verdicts] == [
        ("screened_out", None, "a multiple of seven"),
        ("in_flight", None, ""),
        ("duplicate", 1, ""),  # the same genome
        ("duplicate", 1, ""),  # another genome, the same function
        ("duplicate", 1, ""),  # a genome that was a duplicate before
        ("screened_out", None, "a multiple of eleven"),
        ("duplicate", 5, ""),  # of one that was screened out
        ("in_flight", None, ""),
    ]
    assert space.asked == {"outline": 8, "probe": 4, "same": 1}, "what is known costs no probe"
    assert (verdicts[1].key, verdicts[1].function_key, verdicts[1].novelty) == ("8", "8", "8")


def test_an_equal_key_alone_is_no_duplicate() -> None:
    genomes = [1, 2, 1002, 3]
    screener = Screener(Colliding(), genomes.__getitem__)
    states = [screener.check(genome, number).state for number, genome in enumerate(genomes)]
    assert states == ["in_flight", "in_flight", "duplicate", "in_flight"]


@pytest.mark.parametrize("space", [ToySpace(size=100), Colliding(size=100)])
def test_rebuilt_from_keys_it_says_the_same(space: ToySpace) -> None:
    rng = random.Random(2)
    genomes = [rng.randrange(200) for _ in range(300)]
    whole = Screener(space, genomes.__getitem__)
    verdicts = [whole.check(genome, number) for number, genome in enumerate(genomes)]
    rebuilt = Screener(space, genomes.__getitem__)
    for number, verdict in enumerate(verdicts[:100]):
        rebuilt.add(number, verdict.key, verdict.function_key, verdict.duplicate_of)
    assert [rebuilt.check(genomes[n], n) for n in range(100, 300)] == verdicts[100:]

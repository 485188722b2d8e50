"""The screen: nothing that works is lost, nothing dead gets through, twins are found."""

import random

import pytest
import torch

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering.reference import evaluate
from layersearch.primitives.numerics import Numerics
from layersearch.spaces.evonorm.generate import Generator
from layersearch.spaces.evonorm.published import PUBLISHED, graph_of
from layersearch.spaces.evonorm.screen import outline, probe, same_function

GUARDED = Numerics()


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("numerics", [None, GUARDED], ids=["exact", "guarded"])
def test_known_layers_pass(name: str, numerics: Numerics | None) -> None:
    graph = PUBLISHED[name] if numerics is None else Graph(PUBLISHED[name].nodes, numerics)
    assert outline(graph).reason is None
    assert probe(graph).reason is None


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("tanh", 2)], "does not depend on x"),
        ([("mul", 0, 1)], "does not depend on x"),
        ([("mean_instance", 0)], "constant over space"),
        ([("std_batch", 0), ("max", 4, 3)], "constant over space"),
    ],
)
def test_dead_structures(rows: list[tuple[str, int]], reason: str) -> None:
    assert reason in str(outline(graph_of(*rows, numerics=GUARDED)).reason)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("mul", 0, 2)], "constant at initialization"),
        ([("exp", 0), ("exp", 4), ("exp", 5), ("exp", 6)], "not finite"),
        ([("square", 0), *(("square", k) for k in range(4, 8))], "output above"),
        ([("square", 0), ("neg", 4), ("max", 5, 1), ("mul", 6, 0)], "constant at initialization"),
    ],
)
def test_dead_numbers(rows: list[tuple[str, int]], reason: str) -> None:
    graph = graph_of(*rows, numerics=GUARDED)
    assert outline(graph).reason is None
    assert reason in str(probe(graph).reason)


def test_known_layers_have_keys_of_their_own() -> None:
    assert len({probe(g).key for g in PUBLISHED.values()}) == len(PUBLISHED)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # x·σ(x) as x / (1 + exp(-x))
        ([("sigmoid", 0), ("mul", 0, 4)], [("neg", 0), ("exp", 4), ("exp", 1), ("add", 5, 6), ("div", 0, 7)]),
        # tanh(x) as 2σ(2x) - 1
        (
            [("tanh", 0)],
            [("add", 0, 0), ("sigmoid", 4), ("add", 5, 5), ("exp", 1), ("neg", 7), ("add", 6, 8)],
        ),
        # relu as (x + |x|) / 2
        ([("max", 0, 1)], [("abs", 0), ("add", 0, 4), ("exp", 1), ("add", 6, 6), ("div", 5, 7)]),
    ],
)
def test_twins_that_no_identity_finds_have_one_functional_key(
    a: list[tuple[str, int]], b: list[tuple[str, int]]
) -> None:
    first, second = graph_of(*a), graph_of(*b)
    assert outline(first).key != outline(second).key
    assert probe(first).key == probe(second).key
    assert same_function(first, second)


def test_a_guard_makes_another_function_of_it() -> None:
    exact, guarded = (
        graph_of(("std_batch", 0), ("div", 0, 4)),
        graph_of(("std_batch", 0), ("div", 0, 4), numerics=GUARDED),
    )
    assert not same_function(exact, guarded)


def test_scale_differs_in_the_key_but_not_in_novelty() -> None:
    rows = [("std_batch", 0), ("div", 0, 4)]
    once, twice = graph_of(*rows), graph_of(*rows, ("add", 5, 5))
    negated = graph_of(*rows, ("neg", 5))
    assert probe(once).key != probe(twice).key
    assert len({probe(g).novelty for g in (once, twice, negated)}) == 1
    assert probe(once).novelty != probe(PUBLISHED["evonorm-b0"]).novelty


def test_parameters_are_not_at_their_initial_values_in_the_key() -> None:
    """At v0 = 0, v1 = 1 these three would be one function."""
    plain, scaled, shifted = (
        graph_of(("tanh", 0)),
        graph_of(("mul", 0, 3), ("tanh", 4)),
        graph_of(("tanh", 0), ("add", 4, 2)),
    )
    assert len({probe(g).key for g in (plain, scaled, shifted)}) == 3


def test_the_key_does_not_depend_on_the_group_limit() -> None:
    wide = Graph(PUBLISHED["evonorm-s0"].nodes, Numerics(groups=32))
    narrow = Graph(PUBLISHED["evonorm-s0"].nodes, Numerics(groups=8))
    assert probe(wide).key == probe(narrow).key


def test_no_graph_with_a_working_gradient_is_called_dead() -> None:
    """Against a plain check in float64 on another batch: 1,000 random genomes."""
    generator = Generator(10, batch_moments=True, p_aggregate=0.35, p_connect=0.5, numerics=GUARDED)
    rng = random.Random(3)
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, 4, 6, dtype=torch.float64, generator=numbers)
    for _ in range(1000):
        genome = generator.sample(rng)
        graph = canonical(genome)
        if outline(genome).reason is None:
            continue
        params = {str(n.name): torch.full((4,), float(n.value or 0.0), dtype=torch.float64) for n in graph.params()}
        y = evaluate(graph, x, params, graph.numerics)
        spatial = y.std((2, 3))
        assert not bool((spatial > 1e-9).any()), "the screen refused a layer that varies over space"

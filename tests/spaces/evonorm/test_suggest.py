"""Graphs as parameters: every answer is a legal layer, every layer has its answers."""

import random

import pytest

from layersearch.primitives.canonical import canonical, structural_key
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.numerics import EXACT, Numerics
from layersearch.search.trials import AnswerError, GivenTrial, UniformTrial
from layersearch.spaces.evonorm.generate import Generator
from layersearch.spaces.evonorm.published import INPUTS, PUBLISHED, graph_of, pad
from layersearch.spaces.evonorm.screen import outline
from layersearch.spaces.evonorm.suggest import Encoding

B, S = (Encoding(10, batch_moments, EXACT) for batch_moments in (True, False))


def key(graph: Graph) -> str:
    return structural_key(canonical(graph))


@pytest.mark.parametrize("encoding", [B, S, Encoding(1, True, EXACT), Encoding(3, False, EXACT)], ids="BS13")
def test_every_suggestion_uses_all_its_nodes_and_varies_over_space(encoding: Encoding) -> None:
    rng, sizes = random.Random(1), set()
    for _ in range(400):
        trial = UniformTrial(rng)
        graph = encoding.suggest(trial)
        n_ops = len(graph.nodes) - len(INPUTS)
        sizes.add(n_ops)
        assert n_ops == trial.answers.get("size", 1)
        assert graph.nodes[: len(INPUTS)] == INPUTS
        assert set(range(len(INPUTS), len(graph.nodes))) <= set(graph.active)
        assert graph.domains[graph.output].s
        assert 0 in graph.active
        assert encoding.batch_moments or not graph.uses_batch_moments()
        assert graph.numerics == EXACT
    assert sizes == set(range(1, encoding.nodes + 1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_layers_round_trip_without_their_dead_nodes(name: str) -> None:
    graph = PUBLISHED[name]
    answers = B.parameters(pad(graph, 10))
    assert answers is not None
    assert answers == B.parameters(graph)
    assert answers["size"] == len(graph.nodes) - len(INPUTS)
    assert key(B.suggest(GivenTrial(answers))) == key(graph)
    assert (S.parameters(graph) is None) == graph.uses_batch_moments()


@pytest.mark.parametrize("batch_moments", [True, False])
def test_every_genome_that_passes_the_static_screen_can_be_suggested(batch_moments: bool) -> None:
    """Up to dead nodes and the order of nodes: what is drawn bottom-up has parameters that give it back."""
    rng, encoding = random.Random(2), Encoding(10, batch_moments, Numerics())
    generator = Generator(10, batch_moments, 0.35, 0.5, Numerics())
    n_alive = 0
    for _ in range(600):
        genome = generator.sample(rng)
        answers = encoding.parameters(genome)
        if genome.domains[genome.output].s:
            assert answers is not None
            assert key(encoding.suggest(GivenTrial(answers))) == key(genome)
            n_alive += 1
        else:
            assert answers is None
            assert outline(genome).reason is not None
    assert n_alive > 100


def test_shared_nodes_are_written_once() -> None:
    """(x + v1)·σ(x + v1), with the sum as one node or as two."""
    shared = graph_of(("add", 0, 3), ("sigmoid", 4), ("mul", 4, 5))
    twice = graph_of(("add", 0, 3), ("add", 0, 3), ("sigmoid", 5), ("mul", 4, 6))
    for graph, size in ((shared, 3), (twice, 4)):
        answers = B.parameters(graph)
        assert answers is not None
        assert answers["size"] == size
        assert B.suggest(GivenTrial(answers)) == graph
    assert "f10.x-constant-again" in (B.parameters(shared) or {})


def test_the_same_place_has_the_same_name_in_layers_of_other_sizes() -> None:
    b0, b2 = (B.parameters(PUBLISHED[f"evonorm-{name}"]) or {} for name in ("b0", "b2"))
    assert b0["f.elementwise"] == b2["f.elementwise"] == "div"
    assert b0["f1.op"] == b2["f1.op"] == "max"
    assert (b0["f11.op"], b0["f11.axes"]) == (b2["f11.op"], b2["f11.axes"]) == ("std", "batch")


@pytest.mark.parametrize(
    "graph",
    [
        Graph(INPUTS),
        Graph(INPUTS[:1]),
        graph_of(("std_batch", 0)),
        graph_of(("exp", 3)),
        graph_of(("std_batch", 0), ("mul", 4, 3)),
        Graph((*INPUTS, *[Node("tanh", (max(0, i - 1),)) for i in range(4, 16)])),
    ],
    ids=["no op", "one leaf", "constant over space", "without x", "no part of it varies", "too many ops"],
)
def test_what_cannot_work_has_no_parameters(graph: Graph) -> None:
    assert B.parameters(graph) is None


def test_answers_of_another_series_are_refused() -> None:
    answers = B.parameters(PUBLISHED["bn-relu"])
    with pytest.raises(AnswerError, match=r"axes must be in .*got 'batch'"):
        S.suggest(GivenTrial(answers or {}))


def test_random_suggestions_are_alive() -> None:
    """Drawn bottom-up, seven in ten are dead by their structure; the reason for this encoding."""
    rng = random.Random(3)
    dead = sum(outline(B.suggest(UniformTrial(rng))).reason is not None for _ in range(300))
    assert dead < 60  # 8 % are: what identities make constant

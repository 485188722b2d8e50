"""Random genomes and mutation."""

import random

import pytest

from layersearch.primitives.canonical import canonical
from layersearch.primitives.numerics import Numerics
from layersearch.spaces.evonorm.generate import Generator
from layersearch.spaces.evonorm.published import INPUTS, PUBLISHED, graph_of, pad
from layersearch.spaces.evonorm.screen import outline, probe


def generator(**changes: object) -> Generator:
    settings = {"nodes": 10, "batch_moments": True, "p_aggregate": 0.35, "p_connect": 0.5, "numerics": Numerics()}
    return Generator(**{**settings, **changes})  # type: ignore[arg-type]


def test_same_seed_same_genomes_other_seed_others() -> None:
    draw = lambda seed: [generator().sample(rng) for rng in [random.Random(seed)] for _ in range(20)]  # noqa: E731
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_genome_has_the_initial_nodes_and_the_given_length() -> None:
    graph = generator(nodes=7).sample(random.Random(0))
    assert graph.nodes[: len(INPUTS)] == INPUTS
    assert len(graph.nodes) == len(INPUTS) + 7


def test_the_s_series_never_draws_a_batch_moment() -> None:
    rng, local = random.Random(0), generator(batch_moments=False, p_aggregate=0.9)
    genome = local.sample(rng)
    for _ in range(300):
        genome = local.mutate(genome, rng)
        assert not any("batch" in node.op for node in genome.nodes)


def test_a_mutation_changes_one_intermediate_node() -> None:
    rng, parent = random.Random(0), pad(PUBLISHED["evonorm-b0"], 10)
    touched = set()
    for _ in range(300):
        child = generator().mutate(parent, rng)
        changed = [i for i, (a, b) in enumerate(zip(parent.nodes, child.nodes, strict=True)) if a != b]
        assert len(changed) <= 1
        touched.update(changed)
    assert touched == set(range(len(INPUTS), len(INPUTS) + 10))


def test_every_op_and_every_predecessor_is_drawn() -> None:
    rng = random.Random(0)
    nodes = [node for _ in range(400) for node in generator().sample(rng).nodes[len(INPUTS) :]]
    assert len({node.op for node in nodes}) == 24
    assert {j for node in nodes for j in node.args} == set(range(len(INPUTS) + 9))


def test_connecting_makes_more_genomes_usable() -> None:
    """1,000 genomes each; the shares differ by a factor of three, ten standard errors."""

    def usable(p_connect: float) -> int:
        rng = random.Random(0)
        return sum(outline(generator(p_connect=p_connect).sample(rng)).reason is None for _ in range(1000))

    assert usable(0.5) > 1.5 * usable(0.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_padding_keeps_the_function(name: str) -> None:
    padded = pad(PUBLISHED[name], 10)
    assert len(padded.nodes) == len(INPUTS) + 10
    assert canonical(padded) == canonical(PUBLISHED[name])
    assert probe(padded).key == probe(PUBLISHED[name]).key


def test_padding_leaves_longer_graphs_alone() -> None:
    graph = graph_of(*([("tanh", 0)] * 12))
    assert pad(graph, 10) is graph

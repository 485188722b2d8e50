"""Canonical form: keeps the function, forgets everything else."""

import random
import subprocess
import sys

import torch
from graphs import random_graphs

from layersearch.primitives.canonical import canonical, structural_key
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering.reference import evaluate
from layersearch.primitives.numerics import Numerics
from layersearch.spaces.evonorm.published import PUBLISHED, pad


def output(graph: Graph) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 4, 3, 2, dtype=torch.float64, generator=generator)
    params = {n: torch.randn(4, dtype=torch.float64, generator=generator) for n in ("v0", "v1")}
    return evaluate(graph, x, params, Numerics(groups=2))


def shuffled(graph: Graph, rng: random.Random) -> Graph:
    """The same graph with its nodes in another legal order and the arguments of commutative ops swapped."""
    left, order = list(range(len(graph.nodes) - 1)), []
    while left:
        ready = [i for i in left if all(j in order for j in graph.nodes[i].args)]
        order.append(rng.choice(ready))
        left.remove(order[-1])
    order.append(graph.output)
    place = {old: new for new, old in enumerate(order)}
    nodes = []
    for old in order:
        node = graph.nodes[old]
        args = [place[j] for j in node.args]
        if node.op in ("add", "mul", "max") and rng.random() < 0.5:
            args.reverse()
        nodes.append(Node(node.op, tuple(args), node.value, node.name))
    return Graph(tuple(nodes), graph.numerics)


def test_it_keeps_the_function() -> None:
    compared = 0
    for graph in random_graphs(150, seed=1):
        before = output(graph)
        if bool(torch.isfinite(before).all()) and float(before.abs().max()) < 1e12:
            torch.testing.assert_close(output(canonical(graph)), before, rtol=1e-8, atol=1e-10)
            compared += 1
    assert compared > 100


def test_it_is_idempotent_and_does_not_depend_on_the_order_of_nodes() -> None:
    rng = random.Random(0)
    for graph in random_graphs(100, seed=2):
        form = canonical(graph)
        assert canonical(form) == form
        assert canonical(shuffled(graph, rng)) == form


def test_dead_nodes_do_not_matter() -> None:
    for graph in PUBLISHED.values():
        assert structural_key(canonical(pad(graph, 10))) == structural_key(canonical(graph))


def test_known_layers_differ() -> None:
    assert len({structural_key(canonical(g)) for g in PUBLISHED.values()}) == len(PUBLISHED)


def test_guards_are_part_of_the_key() -> None:
    exact = PUBLISHED["evonorm-b0"]
    guarded = Graph(exact.nodes, Numerics())
    assert structural_key(canonical(exact)) != structural_key(canonical(guarded))


def test_keys_are_equal_in_another_process() -> None:
    code = (
        "from layersearch.primitives.canonical import canonical, structural_key;"
        "from layersearch.spaces.evonorm.published import PUBLISHED;"
        "print(structural_key(canonical(PUBLISHED['evonorm-b0'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == structural_key(canonical(PUBLISHED["evonorm-b0"]))

"""Seeded random graphs for tests."""

import random
from collections.abc import Iterator

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.numerics import EXACT, Numerics
from layersearch.primitives.op import OPS
from layersearch.spaces.evonorm.generate import Generator
from layersearch.spaces.evonorm.published import INPUTS

__all__ = ["random_graphs", "reducing_graphs"]

_AGGREGATES = [name for name, op in OPS.items() if op.moment is not None]
_ELEMENTWISE = [name for name, op in OPS.items() if op.moment is None]
_BINARY = [name for name, op in OPS.items() if op.arity == 2]


def random_graphs(n: int, seed: int = 0, exact: bool = False) -> list[Graph]:
    """``n`` graphs of the B-series whose output varies over space."""
    generator = Generator(
        10, batch_moments=True, p_aggregate=0.4, p_connect=0.6, numerics=EXACT if exact else Numerics()
    )
    rng = random.Random(seed)
    graphs: list[Graph] = []
    while len(graphs) < n:
        graph = generator.sample(rng)
        if graph.domains[graph.output].s:
            graphs.append(graph)
    return graphs


def reducing_graphs(seed: int) -> Iterator[Graph]:
    """Different canonical graphs without end, each with two or more reductions, of small values too.

    Those of the search space hold a reduction in one of three cases, and then of ``x`` itself most times.
    """
    rng = random.Random(seed)
    seen: set[Graph] = set()
    while True:
        graph = canonical(_grown(rng))
        n_moments = sum(graph.nodes[i].op in _AGGREGATES for i in graph.active)
        if graph not in seen and n_moments > 1 and graph.domains[graph.output].s:
            seen.add(graph)
            yield graph


def _grown(rng: random.Random) -> Graph:
    """Ops of values that nothing uses yet, and at the end one value of all that are left: no node is dead."""
    nodes = list(INPUTS)
    loose = [0, 0, rng.choice((0, 1, 2, 3)), rng.choice((2, 3))]

    def append(op: str) -> None:
        args = [loose.pop(rng.randrange(len(loose))) for _ in range(OPS[op].arity)]
        nodes.append(Node(op, tuple(args)))
        loose.append(len(nodes) - 1)
        if rng.random() < 0.2:
            loose.append(rng.randrange(len(nodes)))

    for _ in range(rng.randint(4, 7)):
        append(rng.choice(_AGGREGATES if rng.random() < 0.6 else _ELEMENTWISE))
        while len(loose) < 2:
            loose.append(rng.randrange(len(nodes)))
    while len(loose) > 1:
        append(rng.choice(_BINARY))
    return Graph(tuple(nodes))

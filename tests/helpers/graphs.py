"""Seeded random graphs for tests."""

import random

from layersearch.primitives.graph import Graph
from layersearch.primitives.numerics import EXACT, Numerics
from layersearch.spaces.evonorm.generate import Generator

__all__ = ["random_graphs"]


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

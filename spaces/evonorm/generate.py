"""Random genomes and the paper's three-step mutation."""

import random
from dataclasses import dataclass

from layersearch.primitives.domain import Axes
from layersearch.primitives.graph import Graph, Node, domain_of
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.op import OPS
from layersearch.spaces.evonorm.published import INPUTS

__all__ = ["Generator"]


@dataclass(frozen=True)
class Generator:
    """Draws genomes of ``nodes`` ops over the four initial nodes.

    Args:
        nodes: number of intermediate nodes (10 in the paper).
        batch_moments: whether aggregates over the batch are legal (B-series) or not (S-series).
        p_aggregate: probability that a node is an aggregate; the paper's uniform choice over the 24 ops is 0.5, over
            the 15 op types 0.2.
        p_connect: probability that a random genome's node takes its first argument among the values that vary over
            space and are not used yet; 0 in the paper. With 0, two nodes in ten are active on average and two graphs
            in three do not depend on x. Mutation never does this.
        numerics: guards and group limit of every genome drawn.
    """

    nodes: int
    batch_moments: bool
    p_aggregate: float
    p_connect: float
    numerics: Numerics

    def sample(self, rng: random.Random) -> Graph:
        """A random genome: op and predecessors of each node in turn."""
        nodes = list(INPUTS)
        domains = [domain_of(node, []) for node in INPUTS]
        loose = [0]  # nodes that vary over space and are not used yet
        for i in range(len(INPUTS), len(INPUTS) + self.nodes):
            node = self._draw(rng, i)
            if loose and rng.random() < self.p_connect:
                node = Node(node.op, (rng.choice(loose), *node.args[1:]))
            nodes.append(node)
            loose = [j for j in loose if j not in node.args]
            domains.append(domain_of(node, [domains[j] for j in node.args]))
            if domains[i].s:
                loose.append(i)
        return Graph(tuple(nodes), self.numerics)

    def mutate(self, genome: Graph, rng: random.Random) -> Graph:
        """One child: a random intermediate node gets a random op and random predecessors (the paper's three steps)."""
        nodes = list(genome.nodes)
        i = rng.randrange(len(INPUTS), len(nodes))
        nodes[i] = self._draw(rng, i)
        return Graph(tuple(nodes), genome.numerics)

    def _draw(self, rng: random.Random, i: int) -> Node:
        op = rng.choice(self._aggregates() if rng.random() < self.p_aggregate else _ELEMENTWISE)
        return Node(op, tuple(rng.randrange(i) for _ in range(OPS[op].arity)))

    def _aggregates(self) -> tuple[str, ...]:
        return _AGGREGATES if self.batch_moments else _LOCAL_AGGREGATES


_ELEMENTWISE = tuple(name for name, op in OPS.items() if op.moment is None)
_AGGREGATES = tuple(name for name, op in OPS.items() if op.moment is not None)
_LOCAL_AGGREGATES = tuple(n for n in _AGGREGATES if (m := OPS[n].moment) is not None and m.axes is not Axes.BATCH)

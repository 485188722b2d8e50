"""Canonical form: one graph for all genomes that are equal by dead nodes, order, sharing and simple algebra."""

import hashlib

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.graph import LEAVES, Graph

__all__ = ["canonical", "structural_key"]


def canonical(graph: Graph) -> Graph:
    """``graph`` without dead nodes; constants folded, identities applied, arguments sorted, equal subgraphs shared.

    Idempotent. Equal for equal content whatever the order of nodes. Identities hold for finite values (x·0 = 0).
    """
    build = GraphBuilder(graph.numerics)
    place: dict[int, int] = {}
    for i in graph.active:
        node = graph.nodes[i]
        place[i] = build.leaf(node) if node.op in LEAVES else build.node(node.op, *(place[j] for j in node.args))
    return build.graph(place[graph.output])


def structural_key(graph: Graph) -> str:
    """Key of a canonical graph and its numerics; equal keys mean equal canonical graphs, in every process."""
    text = repr(([(n.op, n.args, n.value, n.name) for n in graph.nodes], sorted(graph.numerics.to_json().items())))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

"""Known layers as genomes: seeds, baselines and regression tests.

EvoNorms: Liu, Brock, Simonyan, Le 2020, arXiv:2004.02967, Table 3 (formulas as also found in the authors' and timm's
code). Every layer is followed by the per-channel affine γ·y + β, which is not part of the genome. Exact numerics: no
guard on divisions.
"""

from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.numerics import EXACT, Numerics

__all__ = ["EVONORMS", "INPUTS", "PUBLISHED", "graph_of", "pad"]

INPUTS = (
    Node("x"),
    Node("const", value=0.0),
    Node("param", value=0.0, name="v0"),
    Node("param", value=1.0, name="v1"),
)
"""The initial nodes of every genome of the space: input, zeros, v0 (init 0), v1 (init 1)."""

_X, _ZEROS, _V0, _V1 = range(len(INPUTS))


def graph_of(*ops: tuple[str | int, ...], numerics: Numerics = EXACT) -> Graph:
    """Graph of ``(op, argument ids…)`` rows over the four initial nodes; the k-th row has id 4 + k."""
    rows = [Node(str(op), tuple(int(a) for a in args)) for op, *args in ops]
    return Graph((*INPUTS, *rows), numerics)


def pad(graph: Graph, nodes: int) -> Graph:
    """The same function with ``nodes`` intermediate nodes: dead ones are put first."""
    first = len(INPUTS)
    missing = nodes - (len(graph.nodes) - first)
    if missing <= 0:
        return graph
    shifted = [
        Node(n.op, tuple(j + missing if j >= first else j for j in n.args), n.value, n.name)
        for n in graph.nodes[first:]
    ]
    return Graph((*INPUTS, *[Node("neg", (_X,))] * missing, *shifted), graph.numerics)


def _normalized_relu(axes: str) -> Graph:
    return graph_of(
        (f"mean_{axes}", _X),
        ("neg", 4),
        ("add", _X, 5),
        (f"std_{axes}", _X),
        ("div", 6, 7),
        ("mul", 8, _V1),
        ("add", 9, _V0),
        ("max", 10, _ZEROS),
    )


EVONORMS: dict[str, Graph] = {
    # x / max(std_b,w,h(x), v1·x + std_w,h(x))
    "evonorm-b0": graph_of(
        ("mul", _X, _V1), ("std_instance", _X), ("add", 4, 5), ("std_batch", _X), ("max", 6, 7), ("div", _X, 8)
    ),
    # x / max(std_b,w,h(x), (x + 1)·rms_w,h(x)); the 1 is exp(0)
    "evonorm-b1": graph_of(
        ("exp", _ZEROS),
        ("add", _X, 4),
        ("rms_instance", _X),
        ("mul", 5, 6),
        ("std_batch", _X),
        ("max", 7, 8),
        ("div", _X, 9),
    ),
    # x / max(std_b,w,h(x), rms_w,h(x) - x)
    "evonorm-b2": graph_of(
        ("neg", _X), ("rms_instance", _X), ("add", 4, 5), ("std_batch", _X), ("max", 6, 7), ("div", _X, 8)
    ),
    # x·σ(v1·x) / std_w,h,c/g(x)
    "evonorm-s0": graph_of(("mul", _X, _V1), ("sigmoid", 4), ("mul", _X, 5), ("std_group", _X), ("div", 6, 7)),
    # x·σ(x) / std_w,h,c/g(x)
    "evonorm-s1": graph_of(("sigmoid", _X), ("mul", _X, 4), ("std_group", _X), ("div", 5, 6)),
    # x·σ(x) / rms_w,h,c/g(x)
    "evonorm-s2": graph_of(("sigmoid", _X), ("mul", _X, 4), ("rms_group", _X), ("div", 5, 6)),
}

PUBLISHED: dict[str, Graph] = {
    "bn-relu": _normalized_relu("batch"),
    "gn-relu": _normalized_relu("group"),
    "bn-silu": graph_of(
        ("mean_batch", _X),
        ("neg", 4),
        ("add", _X, 5),
        ("std_batch", _X),
        ("div", 6, 7),
        ("sigmoid", 8),
        ("mul", 8, 9),
    ),
    # max(x / rms_w,h(x), v0): Singh and Krishnan 2020, arXiv:1911.09737, with the learned threshold as v0
    "frn-tlu": graph_of(("rms_instance", _X), ("div", _X, 4), ("max", 5, _V0)),
    **EVONORMS,
}

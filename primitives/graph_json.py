"""Genome files: a graph as JSON and back, hostile until parsed."""

import json
import sys
from typing import Any

from layersearch.errors import GenomeError
from layersearch.primitives.graph import CONST, INPUT, LEAVES, PARAM, Graph, Node
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.op import OPS

__all__ = [
    "FORMAT",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "graph_from_json",
    "graph_from_text",
    "graph_schema",
    "graph_to_json",
    "plain_from_text",
]

FORMAT = "layersearch.graph/1"
MAX_BYTES = 65536
MAX_NODES = 64
MAX_DEPTH = 48
"""Limits of what is read. The canonical form of a legal graph may be a little larger: signs are moved outwards."""


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Plain data of ``graph``; ``graph_from_json`` gives an equal graph back."""
    nodes: list[dict[str, Any]] = []
    for node in graph.nodes:
        entry: dict[str, Any] = {"op": node.op}
        if node.op == PARAM:
            entry |= {"name": node.name, "init": node.value}
        elif node.op == CONST:
            entry |= {"value": node.value}
        elif node.op != INPUT:
            entry |= {"args": list(node.args)}
        nodes.append(entry)
    return {"format": FORMAT, "numerics": graph.numerics.to_json(), "nodes": nodes}


def graph_from_text(text: str, source: str = "genome") -> Graph:
    """Parses a genome file. Raises: GenomeError with one sentence for text that is not a legal graph."""
    return graph_from_json(plain_from_text(text, source))


def plain_from_text(text: str, source: str = "genome") -> Any:
    """The plain data of a genome file of any space. Raises: GenomeError with one sentence for what is no JSON."""
    if len(text.encode()) > MAX_BYTES:
        raise GenomeError(f"{source} must have at most {MAX_BYTES} bytes, got {len(text.encode())}; shorten it")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        fault = "nested too deep" if isinstance(error, RecursionError) else error
        raise GenomeError(f"{source} must be JSON, and is not ({fault}); correct it") from None


def graph_from_json(data: Any, *, limited: bool = True) -> Graph:
    """A graph from plain data. Raises: GenomeError for anything malformed, unknown, cyclic or over the limits.

    Args:
        limited: that there are limits; without them for canonical forms that were legal graphs.
    """
    fields = _object(data, "a genome", {"format", "numerics", "nodes"})
    if fields["format"] != FORMAT:
        raise GenomeError(
            f"a genome has format {FORMAT!r}, got {fields['format']!r}; convert it or use another version"
        )
    numerics = _object(fields["numerics"], "numerics", {"eps", "div_eps", "log_eps", "groups"})
    entries = fields["nodes"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= (MAX_NODES if limited else len(entries)):
        size = len(entries) if isinstance(entries, list) else type(entries).__name__
        raise GenomeError(f"nodes must be a list of 1 to {MAX_NODES} nodes, got {size}; remove dead nodes")
    graph = Graph(tuple(_node(i, entry) for i, entry in enumerate(entries)), Numerics(**numerics))
    depth: list[int] = []
    for node in graph.nodes:
        depth.append(1 + max((depth[j] for j in node.args), default=0))
    if limited and depth[-1] > MAX_DEPTH:
        raise GenomeError(f"a graph is at most {MAX_DEPTH} nodes deep, got {depth[-1]}; shorten its longest path")
    return graph


def graph_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a genome file, made from the registry. Order of nodes and cycles it cannot express."""
    number = {"type": "number"}

    def node(properties: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def args(arity: int) -> dict[str, Any]:
        index = {"type": "integer", "minimum": 0, "maximum": MAX_NODES - 2}
        return {"type": "array", "items": index, "minItems": arity, "maxItems": arity}

    by_arity = {n: [name for name, op in OPS.items() if op.arity == n] for n in (1, 2)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "layersearch genome",
        **node(
            {
                "format": {"const": FORMAT},
                "numerics": node(
                    {
                        "eps": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                        "div_eps": {"type": "number", "minimum": 0, "maximum": 1},
                        "log_eps": {"type": "number", "minimum": 0, "maximum": 1},
                        "groups": {"type": "integer", "minimum": 1, "maximum": 65536},
                    }
                ),
                "nodes": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_NODES,
                    "items": {
                        "oneOf": [
                            node({"op": {"const": INPUT}}),
                            node({"op": {"const": CONST}, "value": number}),
                            node(
                                {
                                    "op": {"const": PARAM},
                                    "name": {"type": "string", "pattern": "^v[0-9]{1,4}$"},
                                    "init": number,
                                }
                            ),
                            *(node({"op": {"enum": names}, "args": args(n)}) for n, names in by_arity.items()),
                        ]
                    },
                },
            }
        ),
    }


def _node(i: int, entry: Any) -> Node:
    op = entry.get("op") if isinstance(entry, dict) else None
    if not isinstance(op, str):
        raise GenomeError(f"node {i} must be an object with a string 'op', got {entry!r:.60}")
    if op == INPUT:
        _object(entry, f"node {i}", {"op"})
        return Node(INPUT)
    if op == CONST:
        return Node(CONST, value=_number(_object(entry, f"node {i}", {"op", "value"})["value"], f"node {i}: value"))
    if op == PARAM:
        fields = _object(entry, f"node {i}", {"op", "name", "init"})
        if not isinstance(fields["name"], str):
            raise GenomeError(f"node {i}: name must be a string, got {fields['name']!r:.60}")
        return Node(PARAM, value=_number(fields["init"], f"node {i}: init"), name=fields["name"])
    assert op not in LEAVES
    args = _object(entry, f"node {i}", {"op", "args"})["args"]
    if not isinstance(args, list) or not all(isinstance(j, int) and not isinstance(j, bool) for j in args):
        raise GenomeError(f"node {i}: args must be a list of node numbers, got {args!r:.60}")
    return Node(op, tuple(args))


def _object(data: Any, what: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise GenomeError(f"{what} must be an object with {', '.join(sorted(keys))}, got {type(data).__name__}")
    if set(data) != keys:
        wrong = sorted(set(data) ^ keys)
        raise GenomeError(
            f"{what} has exactly the keys {', '.join(sorted(keys))}; missing or unknown: {', '.join(wrong)}"
        )
    return data


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise GenomeError(f"{what} must be a finite number, got {value!r:.60}")
    return float(value)

"""Genome files: exact round trip, and one sentence for everything else."""

import json
from typing import Any

import jsonschema
import pytest
from graphs import random_graphs

from layersearch.errors import BadInputError, GenomeError
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.graph_json import (
    MAX_DEPTH,
    MAX_NODES,
    graph_from_json,
    graph_from_text,
    graph_schema,
    graph_to_json,
)
from layersearch.spaces.evonorm.published import PUBLISHED


def known() -> Any:
    return json.loads(json.dumps(graph_to_json(PUBLISHED["evonorm-b0"])))


@pytest.mark.parametrize("graph", [*PUBLISHED.values(), *random_graphs(20)])
def test_round_trip(graph: Graph) -> None:
    text = json.dumps(graph_to_json(graph))
    assert graph_from_text(text) == graph
    jsonschema.validate(json.loads(text), graph_schema())


def broken(change: str) -> Any:
    data = known()
    match change:
        case "no object":
            return []
        case "unknown key":
            data["extra"] = 1
        case "missing key":
            del data["numerics"]
        case "other format":
            data["format"] = "layersearch.graph/2"
        case "no nodes":
            data["nodes"] = []
        case "too many nodes":
            data["nodes"] += [{"op": "neg", "args": [0]}] * MAX_NODES
        case "unknown op":
            data["nodes"][4]["op"] = "mull"
        case "op is no string":
            data["nodes"][4]["op"] = ["mul"]
        case "wrong arity":
            data["nodes"][4]["args"] = [0]
        case "args are no list":
            data["nodes"][4]["args"] = "01"
        case "fractional args":
            data["nodes"][4]["args"] = [0, 1.5]
        case "boolean args":
            data["nodes"][4]["args"] = [0, True]
        case "nan":
            data["nodes"][1]["value"] = float("nan")
        case "huge number":
            data["nodes"][1]["value"] = 10**400
        case "huge eps":
            data["numerics"]["eps"] = 10**400
        case "long parameter name":
            data["nodes"][2]["name"] = "v12345"
        case "parameter name":
            data["nodes"][2]["name"] = "v0; import os"
        case "eps of zero":
            data["numerics"]["eps"] = 0
        case "eps of text":
            data["numerics"]["eps"] = "1e-5"
        case "groups of zero":
            data["numerics"]["groups"] = 0
    return data


@pytest.mark.parametrize(
    "change",
    [
        "no object",
        "unknown key",
        "missing key",
        "other format",
        "no nodes",
        "too many nodes",
        "unknown op",
        "op is no string",
        "wrong arity",
        "args are no list",
        "fractional args",
        "boolean args",
        "nan",
        "huge number",
        "huge eps",
        "long parameter name",
        "parameter name",
        "eps of zero",
        "eps of text",
        "groups of zero",
    ],
)
def test_what_is_refused(change: str) -> None:
    data = broken(change)
    with pytest.raises(BadInputError) as caught:
        graph_from_json(data)
    assert "\n" not in str(caught.value)
    if change not in ("nan", "huge number"):  # JSON has neither NaN nor a largest number
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, graph_schema())


@pytest.mark.parametrize("args", [[0, 4], [0, 5], [0, -1]], ids=["itself", "later", "negative"])
def test_cycles_are_refused(args: list[int]) -> None:
    data = known()
    data["nodes"][4]["args"] = args
    with pytest.raises(GenomeError, match="earlier nodes"):
        graph_from_json(data)


def test_depth_is_limited() -> None:
    nodes = (Node("x"), *(Node("tanh", (i,)) for i in range(MAX_DEPTH)))
    graph_from_json(graph_to_json(Graph(nodes[:-1])))
    with pytest.raises(GenomeError, match="deep"):
        graph_from_json(graph_to_json(Graph(nodes)))


def test_the_canonical_form_of_a_legal_graph_may_pass_its_limits() -> None:
    chain = [Node("x"), *(Node("exp", (i,)) for i in range(MAX_DEPTH - 2))]
    signed = [
        Node("param", value=1.0, name="v1"),
        Node("neg", (len(chain),)),
        Node("mul", (len(chain) - 1, len(chain) + 1)),
    ]
    graph = graph_from_json(graph_to_json(Graph((*chain, *signed))))
    assert len(canonical(graph).nodes) == len(graph.nodes)


def test_a_parameter_has_one_initial_value() -> None:
    leaves = (Node("x"), Node("param", value=0.0, name="v1"), Node("param", value=1.0, name="v1"))
    with pytest.raises(GenomeError, match="one initial value"):
        Graph((*leaves, Node("mul", (0, 1)), Node("add", (3, 2))))


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": 1' + " " * 70_000 + "}"], ids=["empty", "cut", "nested", "long"]
)
def test_broken_text_is_refused(text: str) -> None:
    with pytest.raises(GenomeError) as caught:
        graph_from_text(text)
    assert "\n" not in str(caught.value)


def test_a_misspelt_op_is_suggested() -> None:
    with pytest.raises(BadInputError, match="did you mean 'mul'"):
        graph_from_json(broken("unknown op"))

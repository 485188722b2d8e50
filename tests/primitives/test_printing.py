"""Printed formulas say what the layer does."""

import re

import pytest
import torch
from graphs import random_graphs

from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering.reference import evaluate
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.op import OPS
from layersearch.primitives.printing import formula, latex
from layersearch.spaces.evonorm.published import PUBLISHED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evonorm-b0", "x / max(std_batch(x), std_instance(x) + v1·x)"),
        ("evonorm-s0", "x·σ(v1·x) / std_group(x)"),
        ("evonorm-s2", "x·σ(x) / rms_group(x)"),
        ("bn-relu", "max(v0 + v1·((x - mean_batch(x)) / std_batch(x)), 0)"),
        ("frn-tlu", "max(v0, x / rms_instance(x))"),
    ],
)
def test_known_formulas(name: str, text: str) -> None:
    assert formula(PUBLISHED[name]) == text


def parsed(text: str, x: torch.Tensor, params: dict[str, torch.Tensor], numerics: Numerics) -> torch.Tensor:
    """Value of a printed formula, read back as arithmetic."""
    names: dict[str, object] = {"x": x, **{n: p.view(1, -1, 1, 1).expand_as(x) for n, p in params.items()}}
    for name, op in OPS.items():
        names[name] = lambda *a, op=op: op.apply(
            *(torch.as_tensor(v, dtype=x.dtype).expand_as(x) for v in a), numerics=numerics
        )
    names["σ"], names["absolute"] = names["sigmoid"], names["abs"]
    main, _, definitions = text.partition(" where ")
    for definition in filter(None, definitions.split(", t")):
        name, _, body = definition.partition(" = ")
        names[name if name.startswith("t") else f"t{name}"] = read(body, names)
    return torch.as_tensor(read(main, names), dtype=x.dtype).expand_as(x)


def read(text: str, names: dict[str, object]) -> torch.Tensor:
    while "|" in text:
        text = re.sub(r"\|([^|]*)\|", r"absolute(\1)", text, count=1)
    result: torch.Tensor = eval(text.replace("·", "*"), {"__builtins__": {}}, names)
    return result


def test_a_printed_formula_reads_back_as_the_same_function() -> None:
    """Formulas with nested bars cannot be told apart by a regular expression and are left out."""
    numerics = Numerics(div_eps=0.0, groups=2)
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(3, 4, 3, 2, dtype=torch.float64, generator=generator)
    params = {n: torch.randn(4, dtype=torch.float64, generator=generator) for n in ("v0", "v1")}
    compared = 0
    for graph in random_graphs(200, seed=21):
        exact = Graph(graph.nodes, numerics)
        text = formula(exact)
        expected = evaluate(exact, x, params, numerics)
        if text.count("|") > 2 or not bool(torch.isfinite(expected).all()) or float(expected.abs().max()) > 1e6:
            continue
        got = parsed(text, x, params, numerics)
        assert float((got - expected).abs().max()) <= 1e-4 * (1 + float(expected.abs().max())), text
        compared += 1
    assert compared > 100


def test_long_formulas_name_their_shared_parts() -> None:
    """Without names a chain of squares of sums would double with every node."""
    nodes = [Node("x"), *(Node("add", (i, i)) if i % 2 else Node("tanh", (i,)) for i in range(30))]
    text = formula(Graph(tuple(nodes)))
    assert " where t1 = " in text
    assert len(text) < 600


@pytest.mark.parametrize("graph", random_graphs(50, seed=23))
def test_latex_is_balanced(graph: Graph) -> None:
    text = latex(graph)
    assert text.count("{") == text.count("}")
    assert text.count(r"\left") == text.count(r"\right")

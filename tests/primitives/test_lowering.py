"""How layers are built from graphs, and their torch source; what all lowerings promise: test_lowering_contract.py."""

import pytest
import torch
from graphs import random_graphs
from lowered import batch, error, oracle_of, with_state_of

from layersearch.errors import UnknownNameError
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.lowering.torch_source import layer_source
from layersearch.primitives.running import running_moments
from layersearch.spaces.evonorm.published import PUBLISHED

KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
RANDOM = {f"random-{k}": canonical(graph) for k, graph in enumerate(random_graphs(60, seed=11))}
GRAPHS = {**KNOWN, **RANDOM}


def test_graphs_in_any_form_have_the_state_dict_of_their_canonical_form() -> None:
    """The order of nodes, and twins among them, would number running moments otherwise."""
    leaves, twins = (Node("x"), Node("tanh", (0,))), (Node("std_batch", (0,)), Node("std_batch", (0,)))
    twice = Graph(
        (*leaves, *twins, Node("std_batch", (1,)), Node("add", (4, 3)), Node("add", (5, 2)), Node("div", (0, 6)))
    )
    for graph in (twice, *random_graphs(30, seed=12)):
        oracle = oracle_of(graph, 8)
        layer = with_state_of(build_layer(graph, 8, groups=4).double(), oracle)
        expected = oracle.eval()(batch())
        if bool(torch.isfinite(expected).all()):
            assert error(layer.eval()(batch()).detach(), expected.detach()) < 1e-9


@pytest.mark.parametrize("name", GRAPHS)
def test_one_buffer_per_batch_moment(name: str) -> None:
    graph = GRAPHS[name]
    batch_ops = {i for i in graph.active if graph.nodes[i].op in ("mean_batch", "rms_batch", "std_batch")}
    assert {m.node for m in running_moments(graph)} <= batch_ops
    assert len({m.name for m in running_moments(graph)}) == len(running_moments(graph))


def test_a_moment_of_parameters_alone_needs_no_buffer() -> None:
    leaves = (Node("x"), Node("param", value=1.0, name="v1"))
    graph = canonical(Graph((*leaves, Node("rms_batch", (1,)), Node("mul", (0, 2)))))
    assert running_moments(graph) == ()
    assert set(build_layer(graph, 4).state_dict()) == {"weight", "bias", "v1"}


def test_eval_mode_computes_no_moment_that_only_training_needs() -> None:
    """In EvoNorm-B1 the mean of a plane serves the batch variance alone."""
    lines = layer_source(KNOWN["evonorm-b1"]).splitlines()
    assert [line for line in lines if line.startswith(" " * 12 + "plane_mean")]
    assert not [line for line in lines if line.startswith(" " * 8 + "plane_mean")]


def test_the_source_is_plain_torch() -> None:
    for graph in GRAPHS.values():
        source = layer_source(graph)
        assert "layersearch" not in source
        assert source.splitlines()[0] == "import torch"


def test_an_unknown_lowering_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'torch'"):
        build_layer(KNOWN["bn-relu"], 4, lowering="torhc")

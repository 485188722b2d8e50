"""Contract of every lowering: one graph, one result, one state dict."""

import pytest
import torch
from graphs import random_graphs
from lowered import batch, error, oracle_of, results, with_state_of
from torch import nn

from layersearch.errors import UnknownNameError
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering import LOWERINGS, build_layer
from layersearch.primitives.lowering.torch_source import layer_source
from layersearch.primitives.running import running_moments
from layersearch.spaces.evonorm.published import PUBLISHED

KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
RANDOM = {f"random-{k}": canonical(graph) for k, graph in enumerate(random_graphs(60, seed=11))}
GRAPHS = {**KNOWN, **RANDOM}
LOWERED = sorted(set(LOWERINGS) - {"reference"})


def pair(graph: Graph, lowering: str, channels: int, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """The float64 oracle and the lowering, with the same random parameters and buffers."""
    oracle = oracle_of(graph, channels)
    layer = build_layer(graph, channels, lowering=lowering, groups=4).to(dtype)
    return oracle, with_state_of(layer, oracle)


@pytest.mark.parametrize("lowering", LOWERED)
@pytest.mark.parametrize("name", GRAPHS)
def test_values_and_gradients_in_training(lowering: str, name: str) -> None:
    oracle, layer = pair(GRAPHS[name], lowering, 8, torch.float64)
    expected, got = results(oracle, batch()), results(layer, batch())
    if not all(bool(torch.isfinite(v).all()) and float(v.abs().max()) < 1e10 for v in expected.values()):
        pytest.skip("the graph is not finite on this batch")
    for key, value in expected.items():
        assert error(got[key], value) < 1e-9, key


@pytest.mark.parametrize("lowering", LOWERED)
@pytest.mark.parametrize("name", KNOWN)
def test_float32_is_as_good_as_eager_float32(lowering: str, name: str) -> None:
    """At most 10 × the error of the node-by-node form in float32, or 2e-6."""
    oracle, layer = pair(KNOWN[name], lowering, 8, torch.float32)
    eager = build_layer(KNOWN[name], 8, lowering="reference", groups=4)
    eager.load_state_dict({k: v.float() for k, v in oracle.state_dict().items()})
    expected = results(oracle, batch())
    got, naive = results(layer, batch().float()), results(eager, batch().float())
    for key, value in expected.items():
        assert error(got[key], value) <= max(10 * error(naive[key], value), 2e-6), key


@pytest.mark.parametrize("lowering", LOWERED)
@pytest.mark.parametrize("name", GRAPHS)
def test_eval_mode_uses_the_running_moments(lowering: str, name: str) -> None:
    oracle, layer = pair(GRAPHS[name], lowering, 8, torch.float64)
    for seed in range(3):
        oracle(batch(seed=seed))
        layer(batch(seed=seed))
    for key, value in oracle.state_dict().items():
        if bool(torch.isfinite(value).all()):
            torch.testing.assert_close(layer.state_dict()[key], value, rtol=1e-9, atol=1e-12)
    expected = oracle.eval()(batch(seed=9))
    if bool(torch.isfinite(expected).all()):
        assert error(layer.eval()(batch(seed=9)).detach(), expected.detach()) < 1e-9


@pytest.mark.parametrize("lowering", LOWERED)
def test_graphs_in_any_form_have_the_state_dict_of_their_canonical_form(lowering: str) -> None:
    """The order of nodes, and twins among them, would number running moments otherwise."""
    leaves, twins = (Node("x"), Node("tanh", (0,))), (Node("std_batch", (0,)), Node("std_batch", (0,)))
    twice = Graph(
        (*leaves, *twins, Node("std_batch", (1,)), Node("add", (4, 3)), Node("add", (5, 2)), Node("div", (0, 6)))
    )
    for graph in (twice, *random_graphs(30, seed=12)):
        oracle, layer = pair(graph, lowering, 8, torch.float64)
        expected = oracle.eval()(batch())
        if bool(torch.isfinite(expected).all()):
            assert error(layer.eval()(batch()).detach(), expected.detach()) < 1e-9


@pytest.mark.parametrize("lowering", LOWERED)
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 8, 4, 1), (2, 6, 3, 3), (2, 7, 2, 5)], ids=str)
def test_ragged_and_degenerate_shapes(lowering: str, name: str, shape: tuple[int, ...]) -> None:
    oracle, layer = pair(KNOWN[name], lowering, shape[1], torch.float64)
    expected, got = results(oracle, batch(shape)), results(layer, batch(shape))
    for key, value in expected.items():
        assert error(got[key], value) < 1e-8, key


@pytest.mark.parametrize("lowering", LOWERED)
@pytest.mark.parametrize("name", KNOWN)
def test_memory_format_and_strides_do_not_matter(lowering: str, name: str) -> None:
    _, layer = pair(KNOWN[name], lowering, 8, torch.float64)
    x = batch((4, 8, 6, 6))
    expected = layer(x)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(layer(x.repeat(1, 1, 1, 2)[..., ::1][..., :6]), expected)


@pytest.mark.parametrize("lowering", LOWERED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", KNOWN)
def test_half_precision_input_is_reduced_in_float32(lowering: str, dtype: torch.dtype, name: str) -> None:
    oracle, layer = pair(KNOWN[name], lowering, 8, torch.float32)
    x = batch().to(dtype)
    y = layer(x)
    assert y.dtype == dtype
    assert error(y.detach(), oracle(x.double()).detach()) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("lowering", LOWERED)
def test_a_nan_in_the_input_reaches_the_output(lowering: str) -> None:
    for name, graph in KNOWN.items():
        x = batch()
        x[0, 0, 0, 0] = torch.nan
        assert bool(torch.isnan(pair(graph, lowering, 8, torch.float64)[1](x)).any()), name


@pytest.mark.parametrize("lowering", LOWERED)
def test_double_backward(lowering: str) -> None:
    _, layer = pair(KNOWN["evonorm-b0"], lowering, 4, torch.float64)
    x = batch((2, 4, 2, 2)).requires_grad_(True)
    assert torch.autograd.gradgradcheck(layer, (x,), atol=1e-4)


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

"""Contract of every op: one row, and all it says agrees with its reference."""

import math

import pytest
import torch

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.domain import Axes
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.lowering.reference import evaluate
from layersearch.primitives.numerics import EXACT, Numerics
from layersearch.primitives.op import OPS, group_count
from layersearch.primitives.printing import formula, latex

NUMERICS = (Numerics(groups=2), Numerics(div_eps=0.0, log_eps=1e-5, groups=2))


def operands(op: str, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, 4, 3, 2, dtype=torch.float64, generator=generator).requires_grad_(True)
        for _ in range(OPS[op].arity)
    ]


def of_x(op: str, numerics: Numerics) -> Graph:
    """The op of x (and of v1, if it takes two arguments)."""
    leaves = (Node("x"), Node("param", value=1.0, name="v1"))
    return Graph((*leaves, Node(op, (0, 1)[: OPS[op].arity])), numerics)


def test_the_space_has_24_ops_of_15_types() -> None:
    assert len(OPS) == 24
    assert len({op.type for op in OPS.values()}) == 15
    assert {m.axes for op in OPS.values() if (m := op.moment)} == set(Axes)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("numerics", NUMERICS, ids=["guarded", "exact division"])
def test_gradient_is_that_of_the_value(op: str, numerics: Numerics) -> None:
    assert torch.autograd.gradcheck(lambda *a: OPS[op].apply(*a, numerics=numerics), operands(op), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_dtype_are_kept(op: str, dtype: torch.dtype) -> None:
    args = [a.detach().to(dtype) for a in operands(op)]
    result = OPS[op].apply(*args, numerics=Numerics(groups=2))
    assert result.shape == args[0].shape
    assert result.dtype == dtype


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("numerics", [*NUMERICS, EXACT], ids=["guarded", "exact division", "exact"])
def test_source_says_what_the_reference_does(op: str, numerics: Numerics) -> None:
    graph = of_x(op, numerics)
    layer = build_layer(graph, 4, lowering="torch", groups=2).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=generator)
    v1 = torch.randn(4, dtype=torch.float64, generator=generator)
    if "v1" in layer.state_dict():
        layer.load_state_dict({"v1": v1}, strict=False)
    expected = evaluate(graph, x, {"v1": v1}, Numerics(numerics.eps, numerics.div_eps, numerics.log_eps, 2))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS)
def test_claims_about_the_sign_hold(op: str) -> None:
    row = OPS[op]
    for seed in range(20):
        args = [a.detach() for a in operands(op, seed)]
        if row.nonnegative:
            assert bool((row.apply(*args, numerics=Numerics(groups=2)) >= 0).all())
        if row.keeps_sign:
            assert bool((row.apply(*(a.abs() for a in args), numerics=Numerics(groups=2)) >= 0).all())


@pytest.mark.parametrize("op", OPS)
def test_nan_comes_through(op: str) -> None:
    for place in range(OPS[op].arity):
        args = [a.detach().clone() for a in operands(op)]
        args[place][0, 0, 0, 0] = math.nan
        assert bool(torch.isnan(OPS[op].apply(*args, numerics=Numerics(groups=2))[0, 0, 0, 0]))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("numerics", [*NUMERICS, EXACT], ids=["guarded", "exact division", "exact"])
def test_identities_keep_the_function(op: str, numerics: Numerics) -> None:
    """Every op over a small set of arguments that its identities look at, built with and without them."""
    leaves = [Node("x"), Node("param", value=1.0, name="v1")]
    consts = [Node("const", value=v) for v in (0.0, 1.0, -1.0, 0.3)]
    inner = [("neg", 0), ("abs", 0), ("exp", 0), ("square", 1), ("neg", 1), ("std_batch", 0), ("mean_layer", 0)]
    nodes = [*leaves, *consts, *(Node(name, (j,)) for name, j in inner)]
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    params = {"v1": torch.tensor([0.5, -1.0, 2.0, 1.0], dtype=torch.float64)}
    probe = Numerics(numerics.eps, numerics.div_eps, numerics.log_eps, 2)
    pairs = [(i, j) for i in range(len(nodes)) for j in range(len(nodes))]
    for args in {pair[: OPS[op].arity] for pair in pairs}:
        raw = Graph((*nodes, Node(op, args)), numerics)
        build = GraphBuilder(numerics)
        place: dict[int, int] = {}
        for i in raw.active:
            node = raw.nodes[i]
            place[i] = build.node(node.op, *(place[a] for a in node.args)) if node.args else build.leaf(node)
        expected = evaluate(raw, x, params, probe)
        got = evaluate(build.graph(place[raw.output]), x, params, probe)
        finite = torch.isfinite(expected)
        torch.testing.assert_close(got[finite], expected[finite], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("op", OPS)
def test_it_prints(op: str) -> None:
    assert "x" in formula(of_x(op, Numerics()))
    text = latex(of_x(op, Numerics()))
    assert text.count("{") == text.count("}")


def test_guarded_division_has_no_pole() -> None:
    zero = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    denominator = torch.tensor([-1e-5, -0.0, 1e-5], dtype=torch.float64).view(1, 1, 1, 3)
    quotient = OPS["div"].apply(zero + 1, denominator, numerics=Numerics())
    assert torch.equal(quotient.sign().flatten(), torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    assert float(quotient.abs().max()) <= 1e5 * (1 + 1e-9)


@pytest.mark.parametrize("op", ["sqrt", "log", "std_batch", "rms_instance", "abs"])
def test_gradient_at_zero_is_finite(op: str) -> None:
    x = torch.zeros(2, 4, 3, 2, requires_grad=True)
    OPS[op].apply(x, numerics=Numerics(groups=2)).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize(
    ("channels", "limit", "expected"), [(64, 32, 32), (48, 32, 24), (7, 32, 7), (34, 32, 17), (37, 32, 1)]
)
def test_groups_are_the_largest_divisor_within_the_limit(channels: int, limit: int, expected: int) -> None:
    assert group_count(channels, limit) == expected

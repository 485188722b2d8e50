"""The c lowering at work: float32 against the float64 oracle, its error as a multiple of eager float32's."""

import copy
import dataclasses
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from graphs import random_graphs
from lowered import batch, error, float32_errors, oracle_of, results, with_state_of
from torch import nn

from layersearch.kernels.codegen import _compile
from layersearch.kernels.codegen.c_kernel import CKernel
from layersearch.primitives.canonical import canonical
from layersearch.primitives.domain import Axes
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering import available, build_layer, c
from layersearch.primitives.lowering.program import lower
from layersearch.primitives.numerics import EXACT
from layersearch.primitives.op import OPS
from layersearch.spaces.evonorm.published import PUBLISHED

KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
RANDOM = {f"random-{k}": canonical(graph) for k, graph in enumerate(random_graphs(60, seed=11))}
"""The same as in test_lowering.py: their kernels are in the session's cache."""
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
PER_UNIT = 50

pytestmark = pytest.mark.skipif(available()["c"] is not None, reason=f"lowering c: {available()['c']}")


@pytest.fixture(autouse=True)
def only_kernels(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The tests of this file would pass by the torch lowering: it is out of reach unless a test asks for it."""
    if request.node.get_closest_marker("torch_allowed") is None:
        monkeypatch.setattr(c, "_is_covered", _must_be_covered)


def _must_be_covered(x: torch.Tensor) -> bool:
    assert x.dtype is torch.float32
    assert x.dim() == 4
    assert x.numel() > 0
    return True


def layer(graph: Graph, channels: int, groups: int = 4) -> nn.Module:
    return build_layer(graph, channels, lowering="c", groups=groups)


def assert_as_good_as_eager(errors: dict[str, tuple[float, float]]) -> None:
    """At most 10 × the error of eager float32, or 2e-6; nothing is asked where eager float32 overflows."""
    for key, (got, naive) in errors.items():
        if not math.isfinite(naive):
            continue
        assert got <= max(10 * naive, 2e-6), (key, got, naive)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    "shape",
    [
        (3, 8, 5, 3),
        (1, 8, 1, 1),
        (4, 6, 1, 1),
        (2, 6, 3, 3),
        (2, 7, 2, 5),
        (1, 5, 9, 1),
        (2, 3, 40, 40),
        (2, 300, 3, 7),
    ],
    ids=str,
)
def test_known_layers(name: str, layout: str, shape: tuple[int, ...]) -> None:
    """Degenerate and ragged shapes too: one pixel, few channels, more channels than a block, several tiles of rows."""
    x = batch(shape).contiguous(memory_format=LAYOUTS[layout])
    errors = float32_errors(layer(KNOWN[name], shape[1]), oracle_of(KNOWN[name], shape[1]), KNOWN[name], x)
    assert errors is not None
    if shape[0] * shape[2] * shape[3] == 1:
        # The deviation from a mean of one element is 0: gradients are differences of equal terms, 1/sqrt(eps) in size.
        assert all(got * 1e-6 <= 2e-6 / math.sqrt(1e-5) for got, _ in errors.values())
    else:
        assert_as_good_as_eager(errors)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("name", RANDOM)
def test_random_graphs_as_shipped(name: str) -> None:
    """Vectorised as users get them; the wide sweep below is built without."""
    for memory_format in LAYOUTS.values():
        x = batch((3, 8, 7, 5)).contiguous(memory_format=memory_format)
        errors = float32_errors(layer(RANDOM[name], 8), oracle_of(RANDOM[name], 8), RANDOM[name], x)
        if errors is None:
            pytest.skip("the graph is not finite on this batch")
        assert_as_good_as_eager(errors)


class _Part:
    """One graph's programs in a library of many."""

    def __init__(self, whole: CKernel, k: int) -> None:
        self.whole, self.k = whole, k

    def workspace(self, name: str, n: int, channels: int) -> int:
        return self.whole.workspace(f"{name}{self.k}", n, channels)

    def run(self, name: str, *args: object, **pointers: int) -> None:
        self.whole.run(f"{name}{self.k}", *args, **pointers)  # type: ignore[arg-type]


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds many graphs in half the time: the arithmetic is the same, without vector instructions."""
    compiler = _compile.find_compiler()
    assert not isinstance(compiler, str)
    quick = dataclasses.replace(compiler, flags=(*compiler.flags, "-O1", "-fno-tree-vectorize"))
    monkeypatch.setattr(_compile, "find_compiler", lambda: quick)


@pytest.mark.slow
@pytest.mark.usefixtures("poisoned_memory", "quick_compiler")
def test_random_graphs_of_all_reduction_domains(rounds: int) -> None:
    """100 graphs a round, at least 200; both layouts, training; several graphs share a library."""
    seen: set[tuple[str, str]] = set()
    compared = 0
    graphs = [canonical(g) for g in random_graphs(100 * max(2, rounds), seed=29)]
    for start in range(0, len(graphs), PER_UNIT):
        unit = graphs[start : start + PER_UNIT]
        programs = {}
        for k, graph in enumerate(unit):
            lowered = lower(graph)
            programs |= {f"forward{k}": lowered.forward, f"backward{k}": lowered.backward}
        whole = CKernel(programs)
        for k, graph in enumerate(unit):
            cls = c._class(graph)
            cls._training_mode.__dict__["kernel"] = _Part(whole, k)
            for memory_format in LAYOUTS.values():
                made = cls(8, groups=4) if graph.uses_group_moments() else cls(8)
                x = batch((3, 8, 4, 3)).contiguous(memory_format=memory_format)
                errors = float32_errors(made, oracle_of(graph, 8), graph, x)
                if errors is not None:
                    assert_as_good_as_eager(errors)
                    compared += 1
                    moments = [OPS[n.op].moment for i in graph.active if (n := graph.nodes[i]).op in OPS]
                    seen |= {(m.axes, m.kind) for m in moments if m is not None}
    assert compared > 1.5 * len(graphs)
    assert len(seen) == len(Axes) * 3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*KNOWN, *sorted(RANDOM)[:8]])
def test_eval_mode(name: str, layout: str) -> None:
    graph = {**KNOWN, **RANDOM}[name]
    x = batch((3, 8, 5, 3)).contiguous(memory_format=LAYOUTS[layout])
    errors = float32_errors(layer(graph, 8), oracle_of(graph, 8).eval(), graph, x)
    if errors is None:
        pytest.skip("the graph is not finite on this batch")
    assert_as_good_as_eager(errors)


@pytest.mark.parametrize("name", KNOWN)
def test_running_moments_are_those_of_the_oracle(name: str) -> None:
    oracle = oracle_of(KNOWN[name], 8)
    made = with_state_of(layer(KNOWN[name], 8), oracle)
    for seed in range(3):
        oracle(batch(seed=seed))
        made(batch(seed=seed).float())
    assert made.state_dict().keys() == oracle.state_dict().keys()
    for key, value in oracle.state_dict().items():
        torch.testing.assert_close(made.state_dict()[key].double(), value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", KNOWN)
def test_reruns_are_equal_bit_for_bit(name: str) -> None:
    made = with_state_of(layer(KNOWN[name], 8), oracle_of(KNOWN[name], 8))
    first, second = (results(made, batch((3, 8, 9, 7)).float()) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["bn-relu", "evonorm-b0", "evonorm-s0"])
def test_strides_do_not_matter(name: str) -> None:
    made = with_state_of(layer(KNOWN[name], 8), oracle_of(KNOWN[name], 8))
    x = batch((4, 8, 6, 6)).float()
    expected = results(made, x)
    views = (x.repeat(1, 1, 1, 2)[..., :6], x.transpose(2, 3).contiguous().transpose(2, 3), x.repeat(1, 2, 1, 1)[:, :8])
    for view in views:
        got = results(made, view)
        assert all(error(got[key], value.double()) < 1e-6 for key, value in expected.items())
    y = made(x.requires_grad_(True))
    (expanded,) = torch.autograd.grad(y.sum(), x)  # its upstream gradient has stride 0
    (dense,) = torch.autograd.grad(made(x), x, torch.ones_like(y))
    torch.testing.assert_close(expanded, dense)


def test_output_keeps_the_memory_format() -> None:
    made = layer(KNOWN["evonorm-b0"], 8)
    for memory_format in LAYOUTS.values():
        x = batch((2, 8, 4, 4)).float().contiguous(memory_format=memory_format).requires_grad_(True)
        y = made(x)
        y.backward(torch.ones(y.shape))
        assert y.is_contiguous(memory_format=memory_format)
        assert x.grad is not None
        assert x.grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("name", KNOWN)
def test_a_nan_in_the_input_reaches_the_output(name: str) -> None:
    for memory_format in LAYOUTS.values():
        x = batch((2, 8, 5, 5)).float().contiguous(memory_format=memory_format)
        x[0, 0, 0, 0] = torch.nan
        assert bool(torch.isnan(layer(KNOWN[name], 8)(x)[0, 0]).any())


@pytest.mark.parametrize(
    ("op", "exact", "low", "high"),
    [
        ("exp", torch.exp, -104.0, 89.0),
        ("sigmoid", torch.sigmoid, -87.0, 100.0),
        ("tanh", torch.tanh, -20.0, 20.0),
        ("log", lambda x: torch.sign(x) * torch.log(torch.abs(x)), 1e-3, 1e4),
    ],
)
def test_functions_of_one_number_are_accurate(
    op: str, exact: Callable[[torch.Tensor], torch.Tensor], low: float, high: float
) -> None:
    """At most 4 units in the last place over the range where the result is a normal number; then the special values."""
    made = layer(Graph((Node("x"), Node(op, (0,))), EXACT), 1)
    some = torch.linspace(low, high, 99_990)
    tiny = torch.tensor([1e-3, -1e-3, 1e-30, 1e-40, 3e-45, 0.6249, 0.6251, 1.0, 0.9999, 1.0001])
    x = torch.cat([some, tiny]).reshape(1, 1, 1000, 100)
    got, expected = made(x).detach().double(), exact(x.double())
    normal = (expected.abs() > 1.2e-38) & (expected.abs() < 3.4e38)
    unit = torch.finfo(torch.float32).eps
    assert float(((got - expected) / expected)[normal].abs().max()) < 4 * unit
    assert (
        float((got - expected)[expected.abs() <= 1.2e-38].abs().max().nan_to_num() if not normal.all() else 0) < 1e-43
    )
    special = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan, 200.0, -200.0]).reshape(1, 1, 1, 6)
    torch.testing.assert_close(made(special).detach(), exact(special), equal_nan=True, rtol=1e-6, atol=1e-37)


def test_large_mean_does_not_spoil_the_variance() -> None:
    """A difference of squares would be off by 13 % here."""
    graph = KNOWN["bn-relu"]
    x = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0)) + 1000
    for memory_format in LAYOUTS.values():
        made = layer(graph, 4)
        made(x.contiguous(memory_format=memory_format))
        expected = x.double().var((0, 2, 3), unbiased=False) * 0.1 + 0.9
        torch.testing.assert_close(made.state_dict()["running_var"].double(), expected, rtol=1e-5, atol=0)


def test_only_x_and_statistics_are_kept_for_backward() -> None:
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(KNOWN["evonorm-b0"], 8)(x)
    assert [t.data_ptr() for t in kept if t.numel() >= x.numel()] == [x.data_ptr()]
    assert sum(t.numel() for t in kept) < x.numel() + 6 * 4 * 8


@pytest.mark.torch_allowed
def test_double_backward_is_that_of_the_torch_lowering() -> None:
    graph = KNOWN["evonorm-b0"]
    made = with_state_of(layer(graph, 4), oracle_of(graph, 4))
    plain = with_state_of(build_layer(graph, 4, groups=4), oracle_of(graph, 4))

    def penalty(module: nn.Module) -> list[torch.Tensor]:
        x = batch((2, 4, 3, 3)).float().requires_grad_(True)
        (dx,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        return list(torch.autograd.grad(dx.square().sum(), [x, *module.parameters()]))

    for got, expected in zip(penalty(made), penalty(plain), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(made.state_dict()[key], value)


@pytest.mark.torch_allowed
@pytest.mark.parametrize(
    "x", [torch.zeros(0, 4, 3, 3), torch.ones(2, 4, 3, 3, dtype=torch.float64)], ids=["empty", "f64"]
)
def test_what_kernels_do_not_cover_goes_the_torch_way(x: torch.Tensor) -> None:
    made = layer(KNOWN["evonorm-s0"], 4).to(x.dtype)
    assert made(x).shape == x.shape
    assert made(x).dtype == x.dtype


def test_checkpointing_autocast_and_deep_copies() -> None:
    from torch.utils.checkpoint import checkpoint

    made = with_state_of(layer(KNOWN["evonorm-s0"], 8), oracle_of(KNOWN["evonorm-s0"], 8))
    x = batch((2, 8, 4, 4)).float()
    expected = results(made, x)["x"]
    assert torch.equal(results(copy.deepcopy(made), x)["x"], expected)
    leaf = x.clone().requires_grad_(True)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).float()
    checkpoint(made, leaf, use_reentrant=False).backward(upstream)
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = made(nn.Conv2d(8, 8, 1)(x))
    assert y.dtype is torch.bfloat16


def test_torch_compile_sees_one_op_per_direction() -> None:
    made = with_state_of(layer(KNOWN["evonorm-b0"], 4), oracle_of(KNOWN["evonorm-b0"], 4))
    other = copy.deepcopy(made)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    x = batch((2, 4, 3, 3)).float()
    expected, got = results(made, x), {}
    leaf = x.clone().requires_grad_(True)
    y = compiled(leaf)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64).float()
    y.backward(upstream)
    got = {"y": y, "x": leaf.grad, **{n: p.grad for n, p in other.named_parameters()}}
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value)
    torch.testing.assert_close(other.state_dict(), made.state_dict())


@pytest.mark.torch_allowed
def test_without_a_compiler_the_torch_lowering_runs_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    c._say_once.cache_clear()
    assert "no C compiler" in str(available()["c"])
    with pytest.warns(RuntimeWarning, match="run by the torch lowering.*no C compiler"):
        made = layer(KNOWN["evonorm-b0"], 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = layer(KNOWN["evonorm-b0"], 4)
    assert made(torch.ones(1, 4, 2, 2)).shape == (1, 4, 2, 2)


def test_subnormal_numbers_survive_a_loaded_kernel(kernel_cache: Path) -> None:
    code = (
        "import torch; from layersearch.primitives.lowering import build_layer;"
        "from layersearch.spaces.evonorm.published import PUBLISHED;"
        "build_layer(PUBLISHED['evonorm-b0'], 4, lowering='c')(torch.ones(1, 4, 2, 2));"
        "print(float(torch.tensor(1e-40) * 0.5) > 0, 1e-310 * 0.5 > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]

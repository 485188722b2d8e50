"""The triton lowering at work against the float64 oracle, its error as a multiple of eager float32's.

The same checks run on a GPU (marked ``gpu``) and, where ``TRITON_INTERPRET=1`` is set, by Triton's interpreter on the
CPU. The variable must be set before Triton is imported: the last test runs this file in a process of its own.
"""

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from graphs import random_graphs
from interpreted import INTERPRETS, interpreted, once_interpreted
from lowered import batch, error, oracle_of, results, upstream, with_state_of
from torch import nn

from layersearch.kernels.codegen import _triton_blocks, triton_kernel
from layersearch.kernels.codegen._triton_shapes import Config
from layersearch.kernels.codegen.triton import Kernel, triton_source
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering import available, base, build_layer, triton
from layersearch.primitives.lowering.program import lower
from layersearch.primitives.numerics import EXACT
from layersearch.spaces.evonorm.published import PUBLISHED

DEVICE = "cpu" if INTERPRETS else "cuda"
CPU_SECONDS = 60

KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
SHAPES = [(3, 8, 5, 3), (1, 8, 1, 1), (2, 7, 5, 3)]

works = [pytest.mark.skipif(available()["triton"] is not None, reason=f"lowering triton: {available()['triton']}")]
works += [] if INTERPRETS else [pytest.mark.gpu]


def with_marks(test: Callable[..., None]) -> Callable[..., None]:
    """A check of kernels at work: by the interpreter, or on a GPU."""
    for mark in works:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def only_kernels(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The checks would pass by the torch lowering: it is out of reach unless a test asks for it."""
    if request.node.get_closest_marker("torch_allowed") is None:
        monkeypatch.setattr(triton, "_is_covered", _must_be_covered)


def _must_be_covered(x: torch.Tensor) -> bool:
    assert x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    assert x.device.type == DEVICE
    assert x.dim() == 4
    assert x.numel() > 0
    return True


def distinct_graphs(n: int) -> dict[str, Graph]:
    """Random graphs, each of which takes kernels that none before it takes; the others compute point by point."""
    found: dict[str, Graph] = {}
    seen: set[object] = set()
    for k, graph in enumerate(random_graphs(400, seed=29)):
        made = canonical(graph)
        program = lower(made)
        sources = triton_source({"forward": program.forward, "backward": program.backward})
        taken = tuple((tuple((k.kind, k.axis) for k in s.staged), s.slab and s.scope) for s in sources.values())
        if taken not in seen and len(found) < n:
            seen.add(taken)
            found[f"random-{k}"] = made
    return found


def shifted(moment: str) -> Graph:
    """x plus a moment of σ(x), which is not 0 where x is: padding must not be counted."""
    return canonical(Graph((Node("x"), Node("sigmoid", (0,)), Node(moment, (1,)), Node("add", (0, 2)))))


RANDOM = distinct_graphs(12)
NOT_ZERO = {
    moment: shifted(moment) for moment in ("mean_batch", "std_batch", "std_group", "rms_layer", "mean_instance")
}


def layer(graph: Graph, channels: int, groups: int = 4) -> nn.Module:
    return build_layer(graph, channels, lowering="triton", groups=groups).to(DEVICE)


def assert_as_good_as_eager(
    graph: Graph, x: torch.Tensor, training: bool = True, groups: int = 4, at_one_element: bool = False
) -> None:
    """Output and all gradients: at most 10 × the error of eager float32, or 2e-6.

    Not where gradients pass 1000, near a division by 0: parameters' gradients are then sums of large terms that cancel,
    in another order than eager's.
    """
    oracle = oracle_of(graph, x.shape[1], groups).train(training)
    expected = results(oracle, x)
    if not all(bool(torch.isfinite(v).all()) and float(v.abs().max()) < 1e3 for v in expected.values()):
        pytest.skip("the graph is not finite, or nearly so, on this batch")
    eager = with_state_of(build_layer(graph, x.shape[1], lowering="reference", groups=groups), oracle)
    naive = results(eager, x.float())
    got = results(with_state_of(layer(graph, x.shape[1], groups), oracle), x.float().to(DEVICE))
    for key, value in expected.items():
        least = 2e-6 / math.sqrt(1e-5) * 1e6 if at_one_element else 2e-6
        allowed = max(10 * error(naive[key], value), least)
        if math.isfinite(allowed):
            assert error(got[key].cpu(), value) <= allowed, (key, error(got[key].cpu(), value), allowed)


@with_marks
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KNOWN)
def test_known_layers(name: str, shape: tuple[int, ...], layout: str) -> None:
    """Ragged and degenerate shapes too; where a mean is of one element, gradients are differences of equal terms."""
    x = batch(shape).contiguous(memory_format=LAYOUTS[layout])
    assert_as_good_as_eager(KNOWN[name], x, at_one_element=shape[0] * shape[2] * shape[3] == 1)


@with_marks
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RANDOM)
def test_random_graphs_of_all_kinds_of_kernels(name: str, layout: str) -> None:
    for shape in ((3, 8, 7, 5), (2, 12, 1, 1)):
        assert_as_good_as_eager(RANDOM[name], batch(shape).contiguous(memory_format=LAYOUTS[layout]))


@with_marks
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("slabs", [True, False], ids=["slab", "passes"])
@pytest.mark.parametrize("moment", NOT_ZERO)
def test_padding_never_enters_a_sum(moment: str, slabs: bool, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not slabs:
        monkeypatch.setattr(_triton_blocks, "_SLAB_ELEMENTS", {1: 0, 2: 0})
    assert_as_good_as_eager(NOT_ZERO[moment], batch((3, 12, 5, 3)).contiguous(memory_format=LAYOUTS[layout]))


@with_marks
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*sorted(RANDOM)[:6], "bn-relu", "evonorm-b0", "evonorm-s0"])
def test_eval_mode(name: str, layout: str) -> None:
    x = batch((3, 8, 5, 3)).contiguous(memory_format=LAYOUTS[layout])
    assert_as_good_as_eager({**KNOWN, **RANDOM}[name], x, training=False)


@with_marks
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["gn-relu", "evonorm-s0", "frn-tlu"])
def test_slabs_that_do_not_fit_are_read_in_passes(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton_blocks, "_SLAB_ELEMENTS", {1: 0, 2: 0})
    assert_as_good_as_eager(KNOWN[name], batch((2, 12, 5, 3)).contiguous(memory_format=LAYOUTS[layout]))


@with_marks
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["bn-relu", "evonorm-b0"])
def test_planes_split_over_several_programs(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 8 elements: several programs, tiles and parts of every plane, several blocks of channels and samples."""

    def tiny(kernel: Kernel, *_: object) -> Config:
        return Config(8 if kernel.kind in ("sweep", "columns") else 64, 4)

    monkeypatch.setattr(triton_kernel, "default_config", tiny)
    assert_as_good_as_eager(KNOWN[name], batch((2, 3, 5, 9)).contiguous(memory_format=LAYOUTS[layout]))


@with_marks
def test_groups_that_are_no_power_of_two() -> None:
    for layout in LAYOUTS.values():
        assert_as_good_as_eager(KNOWN["evonorm-s0"], batch((2, 12, 3, 3)).contiguous(memory_format=layout), groups=4)
        assert_as_good_as_eager(KNOWN["evonorm-s0"], batch((2, 10, 3, 3)).contiguous(memory_format=layout), groups=2)


@with_marks
@pytest.mark.parametrize("name", ["bn-relu", "evonorm-b0", "evonorm-s0"])
def test_reruns_are_equal_bit_for_bit(name: str) -> None:
    made = with_state_of(layer(KNOWN[name], 8), oracle_of(KNOWN[name], 8))
    first, second = (results(copy.deepcopy(made), batch((3, 8, 9, 7)).float().to(DEVICE)) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@with_marks
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)], ids=["bf16", "fp16"])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, unit: float, layout: str) -> None:
    """Rounded to the input's dtype once, at the end; the interpreter cuts off instead of rounding."""
    x = batch((2, 8, 5, 3)).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    for name in ("bn-relu", "evonorm-b0", "evonorm-s0"):
        oracle = oracle_of(KNOWN[name], 8)
        made = with_state_of(layer(KNOWN[name], 8), oracle)
        leaf = x.to(DEVICE, copy=True).requires_grad_(True)
        y = made(leaf)
        assert y.dtype is dtype
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(6)).to(dtype)
        y.backward(upstream.to(DEVICE))
        exact = x.double().requires_grad_(True)
        expected = oracle(exact)
        expected.backward(upstream.double())
        assert error(y.detach().cpu(), expected.detach()) < unit
        assert leaf.grad is not None
        assert exact.grad is not None
        assert leaf.grad.dtype is dtype
        assert error(leaf.grad.cpu(), exact.grad) < unit
        for got, wanted in zip(made.parameters(), oracle.parameters(), strict=True):
            assert got.grad is not None
            assert wanted.grad is not None
            assert got.grad.dtype is torch.float32
            assert error(got.grad.cpu(), wanted.grad) < 1e-5


@with_marks
def test_layers_in_half_precision_have_gradients_in_theirs() -> None:
    made = layer(KNOWN["evonorm-b0"], 8).bfloat16()
    made(batch((2, 8, 4, 4)).bfloat16().to(DEVICE)).sum().backward()
    assert all(p.grad is not None and p.grad.dtype is torch.bfloat16 for p in made.parameters())


@with_marks
def test_running_moments_are_those_of_the_oracle() -> None:
    oracle = oracle_of(KNOWN["bn-relu"], 8)
    made = with_state_of(layer(KNOWN["bn-relu"], 8), oracle)
    for seed in range(3):
        oracle(batch(seed=seed))
        made(batch(seed=seed).float().to(DEVICE))
    assert made.state_dict().keys() == oracle.state_dict().keys()
    for key, value in oracle.state_dict().items():
        torch.testing.assert_close(made.state_dict()[key].double().cpu(), value, rtol=1e-6, atol=1e-7)


@with_marks
def test_large_mean_does_not_spoil_the_variance() -> None:
    """A difference of squares would be off by 13 % here."""
    x = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0)) + 1000
    for memory_format in LAYOUTS.values():
        made = layer(KNOWN["bn-relu"], 4)
        made(x.contiguous(memory_format=memory_format).to(DEVICE))
        expected = x.double().var((0, 2, 3), unbiased=False) * 0.1 + 0.9
        torch.testing.assert_close(made.state_dict()["running_var"].double().cpu(), expected, rtol=1e-5, atol=0)


@with_marks
def test_strides_do_not_matter_and_the_memory_format_is_kept() -> None:
    made = with_state_of(layer(KNOWN["evonorm-b0"], 8), oracle_of(KNOWN["evonorm-b0"], 8))
    x = batch((2, 8, 4, 4)).float().to(DEVICE)
    expected = results(copy.deepcopy(made), x)
    views = (x.repeat(1, 1, 1, 2)[..., :4], x.transpose(2, 3).contiguous().transpose(2, 3))
    for view in views:
        got = results(copy.deepcopy(made), view)
        assert all(error(got[key], value.double()) < 1e-6 for key, value in expected.items())
    for memory_format in LAYOUTS.values():
        leaf = x.contiguous(memory_format=memory_format).requires_grad_(True)
        y = made(leaf)
        (dx,) = torch.autograd.grad(y.sum(), leaf)  # its upstream gradient has stride 0
        assert y.is_contiguous(memory_format=memory_format)
        assert dx.is_contiguous(memory_format=memory_format)


@with_marks
@pytest.mark.parametrize("name", KNOWN)
def test_a_nan_in_the_input_reaches_the_output(name: str) -> None:
    x = batch((2, 8, 3, 3)).float()
    x[0, 0, 0, 0] = torch.nan
    assert bool(torch.isnan(layer(KNOWN[name], 8)(x.to(DEVICE))[0, 0]).any())


@with_marks
@pytest.mark.parametrize(
    ("op", "exact", "low", "high", "tolerance"),
    [
        ("exp", torch.exp, -87.0, 88.0, 1e-6),
        ("sigmoid", torch.sigmoid, -60.0, 100.0, 1e-5),  # tl.exp of a large argument is good to 1e-7 of that argument
        ("tanh", torch.tanh, -20.0, 20.0, 1e-6),
        ("log", lambda x: torch.sign(x) * torch.log(torch.abs(x)), 1e-3, 1e4, 1e-6),
    ],
)
def test_functions_of_one_number_are_accurate(
    op: str, exact: Callable[[torch.Tensor], torch.Tensor], low: float, high: float, tolerance: float
) -> None:
    made = layer(Graph((Node("x"), Node(op, (0,))), EXACT), 1)
    tiny = torch.tensor([1e-3, -1e-3, 1e-30, 0.6249, 0.6251, 1.5])
    x = torch.cat([torch.linspace(low, high, 994), tiny]).reshape(1, 1, 100, 10)
    torch.testing.assert_close(
        made(x.to(DEVICE)).detach().cpu().double(), exact(x.double()), rtol=tolerance, atol=1e-37
    )
    special = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan, 200.0, -200.0]).reshape(1, 1, 1, 6)
    got = made(special.to(DEVICE)).detach().cpu()
    torch.testing.assert_close(got, exact(special), equal_nan=True, rtol=1e-5, atol=1e-37)


@with_marks
def test_only_x_and_statistics_are_kept_for_backward() -> None:
    x = torch.randn(2, 8, 8, 8, device=DEVICE, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(KNOWN["evonorm-b0"], 8)(x)
    assert [t.data_ptr() for t in kept if t.numel() >= x.numel()] == [x.data_ptr()]


@with_marks
@pytest.mark.torch_allowed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_double_backward_is_that_of_the_torch_lowering(dtype: torch.dtype) -> None:
    graph = KNOWN["evonorm-s0"]
    made = with_state_of(layer(graph, 4), oracle_of(graph, 4))
    plain = with_state_of(build_layer(graph, 4, groups=4).to(DEVICE), oracle_of(graph, 4))

    def penalty(module: nn.Module) -> list[torch.Tensor]:
        x = batch((2, 4, 3, 3)).to(DEVICE, dtype).requires_grad_(True)
        y = module(x).to(dtype)
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
        return list(torch.autograd.grad(dx.float().square().sum(), [x, *module.parameters()], allow_unused=True))

    tolerance = 1e-4 if dtype is torch.float32 else 5e-2
    for got, expected in zip(penalty(made), penalty(plain), strict=True):
        assert (got is None) == (expected is None)
        if got is not None and expected is not None:
            assert float((got.float() - expected.float()).norm()) <= tolerance * float(expected.float().norm()) + 1e-5


@with_marks
@pytest.mark.torch_allowed
def test_what_kernels_do_not_cover_goes_the_torch_way() -> None:
    for x in (torch.zeros(0, 4, 3, 3, device=DEVICE), torch.ones(2, 4, 3, 3, dtype=torch.float64, device=DEVICE)):
        made = layer(KNOWN["evonorm-s0"], 4).to(x.dtype)
        assert made(x).shape == x.shape
        assert made(x).dtype == x.dtype


@with_marks
def test_checkpointing_and_autocast() -> None:
    from torch.utils.checkpoint import checkpoint

    made = with_state_of(layer(KNOWN["evonorm-s0"], 8), oracle_of(KNOWN["evonorm-s0"], 8))
    x = batch((2, 8, 4, 4)).float().to(DEVICE)
    leaf = x.clone().requires_grad_(True)
    checkpoint(made, leaf, use_reentrant=False).sum().backward()
    expected = x.clone().requires_grad_(True)
    made(expected).sum().backward()
    assert leaf.grad is not None
    assert expected.grad is not None
    assert torch.equal(leaf.grad, expected.grad)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        y = made(nn.Conv2d(8, 8, 1, device=DEVICE)(x))
    assert y.dtype is torch.bfloat16


@with_marks
def test_the_custom_ops_have_the_shapes_that_they_say() -> None:
    for name, dtype in (("evonorm-b0", torch.float32), ("evonorm-s0", torch.bfloat16)):
        made = layer(KNOWN[name], 4)
        mode = made._training_mode
        inputs = [getattr(made, key).detach() for key in mode.program.inputs]
        for memory_format in LAYOUTS.values():
            x = batch((2, 4, 3, 3)).to(DEVICE, dtype).contiguous(memory_format=memory_format)
            args = (x, inputs, mode.key, getattr(made, "groups", 1))
            statistics = triton._FUSION.forward(*args)[1]
            torch.library.opcheck(triton._FUSION.forward, args, test_utils=("test_schema", "test_faketensor"))
            backward = (torch.ones_like(x), x, statistics, *args[1:])
            torch.library.opcheck(triton._FUSION.backward, backward, test_utils=("test_schema", "test_faketensor"))


@with_marks
def test_the_ops_have_the_derivative_of_the_layer() -> None:
    made = with_state_of(layer(KNOWN["evonorm-b0"], 4), oracle_of(KNOWN["evonorm-b0"], 4))
    x = batch((2, 4, 3, 3)).float().to(DEVICE)
    eager, by_op = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    made(eager).square().sum().backward()
    expected = [p.grad.clone() for p in made.parameters() if p.grad is not None]
    made.zero_grad()
    inputs = [getattr(made, key) for key in made._training_mode.program.inputs]
    triton._FUSION.forward(by_op, inputs, made._training_mode.key, 1)[0].square().sum().backward()
    assert eager.grad is not None
    assert by_op.grad is not None
    torch.testing.assert_close(by_op.grad, eager.grad)
    for got, wanted in zip(made.parameters(), expected, strict=True):
        torch.testing.assert_close(got.grad, wanted)


@with_marks
def test_torch_compile_sees_one_op_per_direction() -> None:
    made = with_state_of(layer(KNOWN["evonorm-b0"], 4), oracle_of(KNOWN["evonorm-b0"], 4))
    other = copy.deepcopy(made)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    x = batch((2, 4, 3, 3)).float().to(DEVICE)
    expected = results(made, x)
    leaf = x.clone().requires_grad_(True)
    y = compiled(leaf)
    y.backward(upstream(y.shape).to(y))
    got = {"y": y, "x": leaf.grad, **{n: p.grad for n, p in other.named_parameters()}, **dict(other.named_buffers())}
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value)
    torch.testing.assert_close(other.state_dict(), made.state_dict())


@pytest.mark.torch_allowed
@pytest.mark.skipif(available()["triton"] is None, reason="there is a device here")
def test_without_a_device_the_torch_lowering_runs_and_says_so() -> None:
    base.say_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="run by the torch lowering"):
        made = layer_without_device()
    assert made(torch.ones(1, 4, 2, 2)).shape == (1, 4, 2, 2)


def layer_without_device() -> nn.Module:
    return build_layer(KNOWN["evonorm-b0"], 4, lowering="triton")


@pytest.mark.torch_allowed
def test_triton_is_not_imported_before_a_kernel_is_needed() -> None:
    code = (
        "import sys; from layersearch.primitives.lowering import available; available();"
        "assert not any(m == 'triton' or m.startswith('triton.') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})


@once_interpreted
def test_the_interpreter_runs_all_of_the_above() -> None:
    passed, cpu_s = interpreted(__file__)
    assert passed > 100
    assert cpu_s < CPU_SECONDS

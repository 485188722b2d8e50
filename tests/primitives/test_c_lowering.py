"""What is special to the c lowering: its functions, what it keeps, what it leaves to torch, life without a compiler.

What all lowerings promise is in test_lowering_contract.py.
"""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from defaults import defaults
from lowering_contract import KNOWN, refuse_fallback
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering import available, base, build_layer
from layersearch.primitives.numerics import EXACT

pytestmark = pytest.mark.skipif(available()["c"] is not None, reason=f"lowering c: {available()['c']}")


def layer(graph: Graph, channels: int) -> nn.Module:
    return build_layer(graph, channels, lowering="c", groups=4)


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
    monkeypatch: pytest.MonkeyPatch, op: str, exact: Callable[[torch.Tensor], torch.Tensor], low: float, high: float
) -> None:
    """At most 4 units in the last place over the range where the result is a normal number; then the special values."""
    made = layer(Graph((Node("x"), Node(op, (0,))), EXACT), 1)
    refuse_fallback(monkeypatch, made)
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


def test_only_x_and_statistics_are_kept_for_backward() -> None:
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(KNOWN["evonorm-b0"], 8)(x)
    assert [t.data_ptr() for t in kept if t.numel() >= x.numel()] == [x.data_ptr()]
    assert sum(t.numel() for t in kept) < x.numel() + 6 * 4 * 8


def test_float64_goes_the_torch_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made = layer(KNOWN["evonorm-s0"], 4).double()
    x = torch.ones(2, 4, 3, 3, dtype=torch.float64)
    assert made(x).dtype is torch.float64
    refuse_fallback(monkeypatch, made)
    with pytest.raises(pytest.fail.Exception, match="the torch lowering is run"):
        made(x)


def test_another_number_of_channels_is_an_error_and_never_read() -> None:
    made = layer(KNOWN["evonorm-b0"], 4)
    with pytest.raises(ValueError, match=r"must be \[N, 4, H, W\], got \[2, 8, 3, 3\]"):
        made(torch.ones(2, 8, 3, 3))


@pytest.mark.parametrize("name", ["v1", "running_var"])
def test_a_tensor_that_is_too_short_goes_the_torch_way(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = layer(KNOWN["evonorm-b0"], 4)
    assert made.state_dict()[name].shape == (4,)
    setattr(made, name, type(getattr(made, name))(torch.ones(1)))
    refuse_fallback(monkeypatch, made)
    with pytest.raises(pytest.fail.Exception, match="the torch lowering is run"):
        made(torch.ones(2, 4, 3, 3))


def test_running_moments_with_gaps_are_moved() -> None:
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    made, gapped = layer(KNOWN["bn-relu"], 4), layer(KNOWN["bn-relu"], 4)
    gapped.running_mean = torch.zeros(8)[::2]
    made(x), gapped(x)
    for name, moved in made.named_buffers():
        torch.testing.assert_close(gapped.get_buffer(name), moved, rtol=1e-6, atol=1e-7)


def test_a_step_tells_autograd_that_running_moments_have_changed() -> None:
    made, x = layer(KNOWN["bn-relu"], 4), torch.randn(2, 4, 3, 3, requires_grad=True)
    y = made.eval()(x)
    made.train()(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_default_dtype_and_device_do_not_matter() -> None:
    made, x = layer(KNOWN["evonorm-b0"], 4), torch.ones(64, 4, 3, 3)
    with defaults(torch.float16, "meta"):
        y = made(x)
    assert torch.equal(y, layer(KNOWN["evonorm-b0"], 4)(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
@pytest.mark.parametrize("grad", [False, True])
def test_who_looks_on_sees_the_operations_of_torch(grad: bool) -> None:
    """torch.func, forward-mode derivatives and tracing: kernels would be a constant to them."""
    made = layer(KNOWN["evonorm-b0"], 4).eval().requires_grad_(False)
    plain = build_layer(KNOWN["evonorm-b0"], 4, lowering="torch", groups=4).eval().requires_grad_(False)
    plain.load_state_dict(made.state_dict())
    x, direction = torch.randn(2, 3, 4, 5, 5)
    with torch.set_grad_enabled(grad):
        seen: tuple[Callable[[nn.Module], torch.Tensor], ...] = (
            lambda m: torch.func.vmap(m)(torch.stack([x, direction])),
            lambda m: torch.func.jvp(m, (x,), (direction,))[1],
            lambda m: torch.func.grad(lambda x: m(x).square().sum())(x),
            lambda m: torch.jit.trace(m, (x,))(direction),
        )
        for transformed in seen:
            torch.testing.assert_close(transformed(made), transformed(plain))
        with forward_ad.dual_level():
            y = made(forward_ad.make_dual(x, direction))
            assert forward_ad.unpack_dual(y).tangent is not None


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
def test_tensors_without_memory_are_refused() -> None:
    made, x = layer(KNOWN["evonorm-b0"], 4).eval(), torch.ones(2, 4, 3, 3)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match="memory of their own"):
        made(x)


def test_without_a_compiler_the_torch_lowering_runs_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    base.say_once.cache_clear()
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

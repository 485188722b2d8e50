"""Which lowering a layer's own kernels run by, what is kept for backward, and life without a compiler."""

import copy
import itertools
import os
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

from layersearch.errors import KernelError, UnknownNameError
from layersearch.primitives import BASES, GRKANMLP, BasisFunctions, GRKANLinear, GroupRational, KANConv2d, KANLinear
from layersearch.primitives.bases._polynomial import _kept
from layersearch.primitives.bases.bspline import _table, _uniform
from layersearch.primitives.basis import Basis
from layersearch.primitives.layers import _features, _quotient
from layersearch.primitives.layers._lowered import chosen, reason_against
from layersearch.primitives.layers.domain_map import DomainMap
from layersearch.primitives.lowering import base

has_c = pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    base.say_once.cache_clear()


@has_c
def test_auto_is_c_on_the_cpu_for_what_it_covers() -> None:
    x = torch.ones(2, 4)
    assert chosen("auto", x) == "c"
    assert chosen("auto", x.bfloat16()) == "c"
    assert chosen("c", x) == "c"
    for other in (x.double(), torch.ones(0, 4), torch.ones(2, 4, device="meta")):
        assert chosen("auto", other) == "torch"
    assert chosen("torch", x) == "torch"
    assert chosen("triton", x) == "torch"


def test_an_unknown_lowering_is_refused_by_name() -> None:
    for make in (GroupRational, lambda c, lowering: KANLinear(c, 2, lowering=lowering)):
        with pytest.raises(UnknownNameError, match="unknown lowering 'tritn'; did you mean 'triton'"):
            make(8, lowering="tritn")  # type: ignore[operator]


def test_layers_hand_the_lowering_on() -> None:
    assert GRKANLinear(8, 2, lowering="torch").rational.lowering == "torch"
    assert {m.lowering for m in GRKANMLP(8, 8, lowering="torch").modules() if isinstance(m, GroupRational)} == {"torch"}
    assert KANLinear(8, 2, "rbf", lowering="torch").functions.lowering == "torch"
    assert KANConv2d(8, 2, 3, basis="rbf", lowering="torch").functions.lowering == "torch"


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_is_silent_and_c_says_so_once() -> None:
    x = torch.linspace(-3, 3, 24).view(3, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = GroupRational(8)(x), KANLinear(8, 2, generator=torch.Generator().manual_seed(0))(x)
    with pytest.warns(RuntimeWarning, match="run by the torch lowering.*no C compiler"):
        named = GroupRational(8, lowering="c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = KANLinear(8, 2, lowering="c", generator=torch.Generator().manual_seed(0))
    assert torch.equal(named(x), plain[0])
    assert torch.equal(layer(x), plain[1])


@has_c
def test_a_kernel_that_cannot_be_built_leaves_auto_to_torch_and_is_an_error_if_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise KernelError("it does not build")

    monkeypatch.setattr("layersearch.kernels.quotient.c.library", broken)
    monkeypatch.setattr("layersearch.kernels.features.c.library", broken)
    for cached in (_quotient._built, _features._refused):
        cached.cache_clear()
    from layersearch.kernels.features import c

    c._kernel.cache_clear()
    base.say_once.cache_clear()
    x = torch.ones(2, 8)
    try:
        with pytest.warns(RuntimeWarning, match="it does not build"):
            y = GroupRational(8)(x)
        assert torch.equal(y, GroupRational(8, lowering="torch")(x))
        assert KANLinear(8, 2)(x).shape == (2, 2)
        for layer in (GroupRational(8, lowering="c"), KANLinear(8, 2, lowering="c")):
            with pytest.raises(KernelError, match="it does not build"):
                layer(x)
    finally:
        for cached in (_quotient._built, _features._refused):
            cached.cache_clear()


@has_c
@pytest.mark.parametrize("basis", ["chebyshev", "morlet", "bspline", "fourier"])
def test_only_small_tensors_and_the_inputs_are_kept_for_backward(basis: str) -> None:
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    state = {name: v.float() for name, v in BASES[basis].state(32).items()}
    for run in (lambda x: BASES[basis].columns(x, state), GroupRational(32)):
        kept: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value, misc]
            run(x)
        large = [t for t in kept if t.numel() >= x.numel()]
        assert [t.data_ptr() for t in large] == [x.data_ptr()]


@has_c
def test_a_copy_and_a_pickle_compute_the_same() -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    for layer in (GroupRational(8), KANLinear(8, 3, "bspline")):
        y = layer(x)
        assert torch.equal(copy.deepcopy(layer)(x), y)
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x), y)


@has_c
@pytest.mark.parametrize("basis", BASES)
def test_training_goes_on_after_a_pass_in_inference_mode(basis: str) -> None:
    """What such a pass leaves in caches may be kept for a backward pass."""
    _kept.cache_clear()
    layer, x = KANLinear(8, 2, basis), torch.ones(2, 8)
    with torch.inference_mode():
        layer(x)
    x.requires_grad_(True)
    layer(x).sum().backward()
    assert x.grad is not None


def test_functorch_transforms_take_the_torch_form() -> None:
    layer = nn.Sequential(KANLinear(4, 4, "rbf"), GroupRational(4, 2))
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    each = torch.func.vmap(torch.func.grad(lambda z: layer(z).sum()))(x)
    held = x.clone().requires_grad_()
    (together,) = torch.autograd.grad(layer(held).sum(), held)
    torch.testing.assert_close(each, together)


@has_c
def test_one_library_serves_all_sizes_of_a_form() -> None:
    from layersearch.kernels.features.c import kernel

    def library(name: str, **settings: float) -> object:
        basis = BASES[name].configure(**settings)
        found = basis.fused(basis.state(2), torch.device("cpu"))
        assert found is not None
        return kernel(found[0])

    assert library("bspline", grid=5) is library("bspline", grid=9)
    assert library("bspline", grid=5) is not library("bspline", order=2)
    assert library("fourier", grid=5) is library("fourier", grid=3, frequency=0.25)
    assert library("chebyshev") is library("legendre", degree=9)


@has_c
def test_the_range_of_a_minmax_domain_moves_once_per_batch() -> None:
    layers = [KANLinear(3, 2, "bspline", domain="minmax", lowering=way) for way in ("auto", "torch")]
    alone = DomainMap("minmax", BASES["bspline"].interval, 3)
    for seed in range(3):
        x = torch.randn(10, 3, generator=torch.Generator().manual_seed(seed))
        for module in (*layers, alone):
            module(x)
    for layer, (name, buffer) in itertools.product(layers, alone.named_buffers()):
        assert torch.equal(layer.functions.domain.get_buffer(name), buffer), name


@has_c
def test_a_gradient_that_is_not_wanted_is_not_asked_for() -> None:
    functions = BasisFunctions("dog", 3)
    x = torch.randn(4, 3)
    assert not functions(x).isnan().any()
    functions.requires_grad_(False)
    held = x.clone().requires_grad_()
    functions(held).sum().backward()
    assert held.grad is not None
    assert all(p.grad is None for p in functions.parameters())
    assert not functions(x).requires_grad


def test_the_pieces_of_splines_are_those_of_the_recursion() -> None:
    f = torch.linspace(0, 1, 33, dtype=torch.float64)
    for order in range(1, 9):
        for row, piece in zip(_table(order), _uniform(f, order), strict=True):
            powers = torch.stack([f**j for j in range(order + 1)])
            torch.testing.assert_close(torch.tensor(row, dtype=torch.float64) @ powers, piece)


@pytest.mark.parametrize("name", list(BASES))
def test_rows_say_which_kernel_they_have(name: str) -> None:
    basis: Basis = BASES[name]
    found = basis.fused(basis.state(2), torch.device("cpu"))
    form = "quotient" if name == "rational" else None if found is None else type(found[0].form).__name__.lower()
    assert basis.kernel == form
    if found is not None:
        assert found[0].count == basis.n_functions
        assert len(found[1]) == found[0].n_tensors


def test_triton_is_not_imported_for_a_layer_on_the_cpu() -> None:
    code = (
        "import sys, torch; from layersearch.primitives import GroupRational, KANLinear;"
        "GroupRational(8)(torch.ones(1, 8)); KANLinear(8, 2)(torch.ones(1, 8));"
        "assert not any(m == 'triton' or m.startswith('triton.') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})

"""Kernels written for layers, compiled for Hopper without a GPU: registers, spills and wide loads."""

from pathlib import Path

import pytest
import torch

from layersearch.errors import KernelError
from layersearch.kernels.codegen._triton_load import why_no_triton
from layersearch.kernels.codegen.triton_ahead import Compiled
from layersearch.kernels.features._triton_text import product_text
from layersearch.kernels.features.triton import Sizes, plan
from layersearch.kernels.launch import compile_launch
from layersearch.kernels.quotient import triton as quotient
from layersearch.kernels.quotient.shape import Degrees, Extents
from layersearch.primitives import BASES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton())),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def assert_fits(kernel: Compiled, registers: int) -> None:
    if kernel.registers is None:
        pytest.skip("cuobjdump is not part of this Triton")
    assert kernel.registers <= registers, kernel
    assert kernel.spilled_bytes == 0, kernel


def compiled_quotient(extents: Extents, dtype: str, backward: bool, degrees: Degrees) -> Compiled:
    itemsize = {"fp32": 4, "bf16": 2}[dtype]
    launch, _ = quotient.plan(quotient.quotient_text(degrees), extents, 2.0**20, backward, itemsize)
    full = dict.fromkeys(("x_ptr", "g_ptr", "out_ptr"), dtype)
    return compile_launch(launch, full | dict.fromkeys(("a_ptr", "b_ptr", "part_ptr"), "fp32"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("extents", [Extents(25216, 8, 96), Extents(25216, 8, 24), Extents(64, 8, 8192)], ids=str)
def test_quotients_fit_registers_and_read_wide(extents: Extents, dtype: str) -> None:
    """The backward pass leaves room for four programs of 128 threads on a multiprocessor."""
    forward = compiled_quotient(extents, dtype, False, Degrees(5, 4))
    assert_fits(forward, 64)
    assert forward.vector_loads > 0
    backward = compiled_quotient(extents, dtype, True, Degrees(5, 4))
    assert_fits(backward, 128)
    if dtype == "fp32":
        assert backward.vector_loads == 2


@pytest.mark.parametrize(("extents", "degrees"), [(Extents(7, 3, 5), (3, 2)), (Extents(3, 1, 70001), (9, 8))], ids=str)
def test_quotients_compile_at_odd_sizes_and_degrees(extents: Extents, degrees: tuple[int, int]) -> None:
    for backward in (False, True):
        assert_fits(compiled_quotient(extents, "bf16", backward, Degrees(*degrees)), 255)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("bspline", "bf16"), ("chebyshev", "bf16"), ("fourier", "bf16"), ("rbf", "bf16"), ("chebyshev", "fp32")],
)
def test_products_fit_registers(name: str, dtype: str) -> None:
    basis = BASES[name]
    fused = basis.fused(basis.state(4), torch.device("cpu"))
    assert fused is not None
    text = product_text(fused[0])
    types = dict.fromkeys(("x_ptr", "dx_ptr", "part_ptr", "p0_ptr", "p1_ptr"), "fp32")
    types |= dict.fromkeys(("g_ptr", "w_ptr", "y_ptr"), dtype)
    for launch in plan(text, fused[0], Sizes(65536, 256, 256, {"fp32": 4, "bf16": 2}[dtype]), "tf32").values():
        assert_fits(compile_launch(launch, types), 255)


def test_a_process_that_interprets_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(KernelError, match="unset it"):
        compiled_quotient(Extents(7, 3, 5), "fp32", False, Degrees(5, 4))

"""Kernels of lookups and of steps of rows, compiled for Hopper without a GPU: registers, spills and wide loads."""

from itertools import product
from pathlib import Path

import pytest

from layersearch.kernels.codegen._triton_load import why_no_triton
from layersearch.kernels.codegen.triton_ahead import Compiled
from layersearch.kernels.launch import Launch, compile_launch
from layersearch.kernels.lookup.row_adam_triton import plan_all, plan_made_up, plan_put, plan_step
from layersearch.kernels.lookup.triton import plan_backward, plan_forward, plan_sums

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton())),
]

INDICES = ("ids_ptr", "sorted_ptr", "order_ptr", "start_ptr")
OTHERS = {"part_ptr": "fp32", "some_ptr": "fp32", "count_ptr": "i32", "decayed_ptr": "fp64", "numbers_ptr": "fp64"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(launch: Launch, dtype: str) -> Compiled:
    words = [word for word in launch.kernel.arguments if word.endswith("_ptr")]
    types = {word: "i64" if word in INDICES else dtype for word in words}
    return compile_launch(launch, types | OTHERS)


def assert_fits(kernel: Compiled, registers: int) -> None:
    if kernel.registers is None:
        pytest.skip("cuobjdump is not part of this Triton")
    assert kernel.registers <= registers, kernel
    assert kernel.spilled_bytes == 0, kernel


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_rows_of_16_columns_are_read_wide(dtype: str) -> None:
    """Four programs and more of 128 threads on a multiprocessor."""
    forward = compiled(plan_forward(159_744, 1_000_000, 16, True, False), dtype)
    assert_fits(forward, 64)
    backward = compiled(plan_backward(60_000, 1_000_000, 16, True, False, (True, True, False)), dtype)
    assert_fits(backward, 128)
    sums = compiled(plan_sums(50_000, 16), dtype)
    assert_fits(sums, 64)
    if dtype == "fp32":
        assert forward.vector_loads > 0
        assert backward.vector_loads > 1


@pytest.mark.parametrize("columns", [1, 17, 1025])
def test_all_that_is_wanted_compiles_at_odd_widths(columns: int) -> None:
    for has_gates, has_values in product((False, True), repeat=2):
        assert_fits(compiled(plan_forward(7, 9, columns, has_gates, has_values), "bf16"), 255)
    assert_fits(compiled(plan_backward(7, 9, columns, True, True, (True, True, True)), "bf16"), 255)
    assert_fits(compiled(plan_backward(7, 9, columns, True, True, (False, False, True)), "fp32"), 255)
    assert_fits(compiled(plan_sums(7, columns), "bf16"), 255)


@pytest.mark.parametrize("columns", [1, 16, 17, 1025])
def test_steps_of_rows_compile_and_read_rows_of_16_columns_wide(columns: int) -> None:
    n, rows = 50_000, 1_000_000
    plans = [plan_step(n, rows, columns), plan_made_up(n, rows, columns), plan_put(n, rows, columns)]
    for plan in (*plans, plan_all(rows, columns)):
        kernel = compiled(plan, "fp32")
        assert_fits(kernel, 128)
        assert columns != 16 or kernel.vector_loads > 0

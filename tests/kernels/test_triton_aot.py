"""Kernels compiled for Hopper without a GPU: registers, spills and wide loads, read from what would run."""

from pathlib import Path

import pytest
from graphs import random_graphs

from layersearch.errors import KernelError
from layersearch.kernels.codegen._triton_load import why_no_triton
from layersearch.kernels.codegen.program import Program
from layersearch.kernels.codegen.triton import triton_source
from layersearch.kernels.codegen.triton_ahead import Compiled, build_seconds, compile_ahead
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering.program import lower
from layersearch.spaces.evonorm.published import PUBLISHED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton())),
]

REGISTERS = 255


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def programs(graph: Graph) -> dict[str, Program]:
    lowered = lower(canonical(graph))
    return {"forward": lowered.forward, "backward": lowered.backward}


def assert_fits(kernel: Compiled) -> None:
    if kernel.registers is None:
        pytest.skip("cuobjdump is not part of this Triton")
    assert kernel.registers <= REGISTERS, kernel
    assert kernel.spilled_bytes == 0, kernel


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["bn-relu", "evonorm-b0", "evonorm-s0"])
def test_known_layers_fit_registers_and_read_16_bytes_at_a_time(name: str, dtype: str, layout: str) -> None:
    compiled = compile_ahead(programs(PUBLISHED[name]), (128, 64, 1024), 32, dtype=dtype, layout=layout)
    for kernel in compiled:
        assert_fits(kernel)
        if kernel.kind in ("sweep", "slab"):
            assert kernel.vector_loads > 0, kernel
            assert kernel.loads <= 32, kernel


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_several_tiles_of_a_plane_fit_registers(layout: str) -> None:
    for kernel in compile_ahead(programs(PUBLISHED["evonorm-b0"]), (256, 256, 3136), 32, layout=layout):
        assert_fits(kernel)


def test_the_largest_slabs_fit_registers() -> None:
    for shape in ((64, 64, 4096), (64, 128, 4096)):
        compiled = compile_ahead(programs(PUBLISHED["evonorm-s0"]), shape, 32)
        assert compiled[0].kind == "slab"
        for kernel in compiled:
            assert_fits(kernel)


@pytest.mark.parametrize(
    ("shape", "groups", "layout", "dtype"),
    [((8, 24, 196), 8, "nchw", "fp32"), ((8, 24, 49), 8, "nhwc", "bf16"), ((3, 1, 1), 1, "nchw", "fp16")],
    ids=str,
)
def test_every_kind_of_kernel_compiles_at_odd_sizes(
    shape: tuple[int, int, int], groups: int, layout: str, dtype: str
) -> None:
    seen: set[tuple[str, str]] = set()
    for graph in random_graphs(300, seed=29):
        made = programs(graph)
        kernels = [k for source in triton_source(made).values() for k in (*source.staged, *(source.slab or ()))]
        if {(k.kind, k.axis) for k in kernels} <= seen:
            continue
        seen |= {(k.kind, k.axis) for k in kernels}
        for kernel in compile_ahead(made, shape, groups, dtype=dtype, layout=layout):
            assert_fits(kernel)
    assert {kind for kind, _ in seen} == {"sweep", "slab", "merge", "columns", "rows", "cells"}


def test_build_time_is_measured_whatever_the_cache() -> None:
    made = programs(PUBLISHED["bn-relu"])
    assert min(build_seconds(made) for _ in range(2)) > 0.05


def test_a_process_that_interprets_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(KernelError, match="unset it"):
        compile_ahead(programs(PUBLISHED["bn-relu"]), (2, 4, 16), 2)

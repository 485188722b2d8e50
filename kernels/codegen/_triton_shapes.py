"""Launches of generated kernels: which run, and their block sizes, by class and shapes, never by the candidate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from layersearch.kernels.codegen._triton_blocks import (
    Blocks,
    Config,
    Sizes,
    cells_blocks,
    columns_blocks,
    holds_slab,
    least_slab,
    merge_blocks,
    power,
    rows_blocks,
    slab_blocks,
    slab_config,
    sweep_blocks,
    sweep_config,
)
from layersearch.kernels.codegen.triton import Kernel, TritonSource

__all__ = [
    "Config",
    "Launch",
    "Sizes",
    "candidates",
    "class_key",
    "default_config",
    "is_addressable",
    "planned",
    "work_floats",
]

_SMALL_CONFIG = Config(1024, 4)
_THREADS = 32
_MAX_INT = 2**31


@dataclass(frozen=True)
class Launch:
    """A kernel with the number of its programs, warps, the numbers that it takes, and the parts it leaves of planes."""

    kernel: Kernel
    grid: tuple[int, int]
    warps: int
    numbers: Mapping[str, int | bool]
    parts: int


def is_addressable(sizes: Sizes) -> bool:
    """Whether indices of planes and within a sample fit 32 bits, in which they are computed."""
    return sizes.n * sizes.c < _MAX_INT and sizes.c * sizes.s < _MAX_INT


def members(source: TritonSource, sizes: Sizes) -> int:
    """Channels of one slab."""
    return {"plane": 1, "group": sizes.per_group, "layer": sizes.c}[source.scope]


def default_config(kernel: Kernel, source: TritonSource, sizes: Sizes) -> Config:
    """What is used where nothing was measured."""
    if kernel.kind == "sweep":
        return sweep_config(kernel.sums)
    return slab_config(sizes, members(source, sizes)) if kernel.kind == "slab" else _SMALL_CONFIG


def candidates(kernel: Kernel, source: TritonSource, sizes: Sizes) -> list[Config]:
    """What is worth measuring, the default first. Kernels of small values are not: their time is that of a launch."""
    default = default_config(kernel, source, sizes)
    if kernel.kind == "sweep":
        others = [Config(tile, warps) for tile in (1024, 2048, 4096, 8192) for warps in (4, 8)]
    elif kernel.kind == "slab":
        least = least_slab(sizes, members(source, sizes))
        tiles = {max(least, tile) for tile in (1024, 2048, 4096)}
        others = [Config(t, w) for t in sorted(tiles) for w in (4, 8, 16) if t // w <= 32 * _THREADS]
    else:
        others = []
    return [default, *(c for c in others if c != default)]


def class_key(kernel: Kernel, source: TritonSource, sizes: Sizes) -> str:
    """What one measurement stands for: kernels of a class at sizes between the same powers of two."""
    layout = "nhwc" if sizes.nhwc else "nchw"
    work = f"{kernel.kind}-r{kernel.reads}w{int(kernel.writes)}s{min(kernel.sums, 4)}"
    scope = f"-{source.scope}{power(members(source, sizes))}" if kernel.kind == "slab" else ""
    return f"{work}{scope}/{layout}/{8 * sizes.item_bytes}/n{power(sizes.n)}c{power(sizes.c)}s{power(sizes.s)}"


def planned(source: TritonSource, sizes: Sizes, config: Callable[[Kernel], Config]) -> list[Launch]:
    """The launches of a program at these sizes, in order."""
    slab = source.slab
    if slab is not None and holds_slab(sizes, members(source, sizes), slab[0].reads):
        return [_launch(kernel, _blocks(kernel, source, sizes, config(kernel))) for kernel in slab]
    found: list[Launch] = []
    sweep = Blocks((0, 0), 0, {})
    for kernel in source.staged:
        if kernel.kind == "merge":
            if sweep.parts:
                found.append(_launch(kernel, merge_blocks(sizes, sweep)))
            continue
        blocks = _blocks(kernel, source, sizes, config(kernel))
        sweep = blocks if kernel.kind == "sweep" else sweep
        found.append(_launch(kernel, blocks))
    return found


def work_floats(source: TritonSource, sizes: Sizes, launches: list[Launch]) -> int:
    """Size of the workspace: small values, and behind them the parts of split planes."""
    parts = max((made.parts for made in launches), default=0)
    return source.work.size(sizes.n, sizes.c) + parts * sizes.n * sizes.c


def _blocks(kernel: Kernel, source: TritonSource, sizes: Sizes, config: Config) -> Blocks:
    if kernel.kind == "sweep":
        return sweep_blocks(sizes, kernel.sums, config)
    if kernel.kind == "slab":
        return slab_blocks(sizes, members(source, sizes), config)
    if kernel.kind == "rows":
        return rows_blocks(sizes, kernel.axis, config)
    return (columns_blocks if kernel.kind == "columns" else cells_blocks)(sizes, config)


def _launch(kernel: Kernel, blocks: Blocks) -> Launch:
    numbers = {name: value for name, value in blocks.numbers.items() if name in kernel.arguments}
    return Launch(kernel, blocks.grid, blocks.warps, numbers, blocks.parts)

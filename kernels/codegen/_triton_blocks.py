"""Block sizes and grids of generated kernels, from sizes alone.

Exported files hold a copy of what they use of this module: it imports nothing of layersearch and reads on its own.
The defaults follow from counts, not from measurements on a device: 16 elements for each thread, a power of two of
channels that fills a memory sector, and enough programs for some on every multiprocessor.
"""

from typing import NamedTuple

__all__ = [
    "Blocks",
    "Config",
    "Sizes",
    "cells_blocks",
    "columns_blocks",
    "holds_slab",
    "least_slab",
    "merge_blocks",
    "power",
    "rows_blocks",
    "slab_blocks",
    "slab_config",
    "sweep_blocks",
    "sweep_config",
]

_THREADS = 32
"""Of a warp."""
_TILE = 2048
_THREAD_ELEMENTS = 16
_MANY_SUMS = 3
"""From here on a thread keeps 8 elements: five sums of 16 take 167 registers (evonorm-b0 backward, sm_90)."""
_PROGRAMS = 512
"""Programs below which planes are split: about four for each multiprocessor of the devices meant."""
_MAX_STEPS = 64
_LEAST_STEPS = 4
"""A program of a split plane still reads so many tiles: a merge costs a launch."""
_SLAB_ELEMENTS = {1: 16384, 2: 8192}
"""Most elements of a slab in one program, by the tensors read: more of them spill registers."""
_SECTOR_BYTES = 32
_SMALL = (1024, 4)
"""Tile and warps of kernels of small values."""


class Sizes(NamedTuple):
    """N, C, H·W, channels of a group, bytes of an element, and whether the memory is channels_last."""

    n: int
    c: int
    s: int
    per_group: int
    item_bytes: int
    nhwc: bool


class Config(NamedTuple):
    """``tile``: elements of a program at a time, a power of two; ``warps`` of 32 threads."""

    tile: int
    warps: int


class Blocks(NamedTuple):
    """How a kernel is started: its programs, their warps, and all numbers that kernels of its kind may take.

    ``parts``: sums that several programs leave for every plane they share, to be merged; 0 where none is shared.
    """

    grid: tuple[int, int]
    warps: int
    numbers: dict[str, int | bool]
    parts: int = 0


def power(n: int) -> int:
    """The least power of two that is not below ``n``."""
    return 1 << max(n - 1, 0).bit_length()


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _unit(size: int) -> int:
    """The power of two, at most 8, that is taken out of a size: by 16 the compiler finds it itself."""
    return 1 if size % 16 == 0 else size & -size & 7 or 8


def _numbers(sizes: Sizes) -> dict[str, int | bool]:
    """What kernels take of the sizes: C and H·W as multiples of a power of two that is compiled in."""
    c_unit, s_unit = _unit(sizes.c), _unit(sizes.s)
    return {
        "N": sizes.n,
        "CG": sizes.per_group,
        "c_units": sizes.c // c_unit,
        "s_units": sizes.s // s_unit,
        "NHWC": sizes.nhwc,
        "C_UNIT": c_unit,
        "S_UNIT": s_unit,
    }


def sweep_config(sums: int) -> Config:
    return Config(_TILE if sums < _MANY_SUMS else _TILE // 2, _TILE // (_THREAD_ELEMENTS * _THREADS))


def sweep_blocks(sizes: Sizes, sums: int, config: Config | None = None) -> Blocks:
    """Of a kernel that reads the tensor once and adds up ``sums`` numbers per plane; few planes are split."""
    tile, warps = config or sweep_config(sums)
    if sizes.nhwc:
        lanes = min(power(sizes.c), max(1, 4 * _SECTOR_BYTES // sizes.item_bytes), tile)
        span = min(power(sizes.s), tile // lanes)
        programs = sizes.n * _ceil(sizes.c, lanes)
    else:
        span = min(power(sizes.s), tile)
        lanes = min(power(sizes.n * sizes.c), tile // span)
        programs = _ceil(sizes.n * sizes.c, lanes)
    steps = min(power(_ceil(sizes.s, span)), _MAX_STEPS) if sums else 1
    while steps > _LEAST_STEPS and programs * _ceil(sizes.s, span * steps) < _PROGRAMS:
        steps //= 2
    count = _ceil(sizes.s, span * steps)
    own = {"LANES": lanes, "SPAN": span, "STEPS": steps, "SPLIT": count > 1}
    return Blocks((programs, count), warps, {**_numbers(sizes), **own}, sums * count if count > 1 else 0)


def merge_blocks(sizes: Sizes, sweep: Blocks) -> Blocks:
    """Of the kernel that adds up the parts that ``sweep`` leaves of every plane."""
    planes = sizes.n * sizes.c
    lanes = min(128, power(planes))
    pixels = int(sweep.numbers["SPAN"]) * int(sweep.numbers["STEPS"])
    own = {"LANES": lanes, "SPAN": pixels, "STEPS": power(sweep.grid[1])}
    return Blocks((_ceil(planes, lanes), 1), _SMALL[1], {**_numbers(sizes), **own})


def columns_blocks(sizes: Sizes, config: Config | None = None) -> Blocks:
    """Of a kernel that sums small values over the batch."""
    tile, warps = config or _SMALL
    columns = min(8, power(sizes.c))
    rows = max(1, min(power(sizes.n), tile // columns))
    columns = max(columns, min(tile // rows, 32, power(sizes.c)))
    own = {"ROWS": rows, "COLUMNS": columns, "STEPS": power(_ceil(sizes.n, rows))}
    return Blocks((_ceil(sizes.c, columns), 1), warps, {**_numbers(sizes), **own})


def rows_blocks(sizes: Sizes, axis: str, config: Config | None = None) -> Blocks:
    """Of a kernel that sums small values over the channels of each ``group``, over all (``layer``), or over groups."""
    tile, warps = config or _SMALL
    groups = sizes.c // sizes.per_group
    members = power({"group": sizes.per_group, "layer": sizes.c, "groups": groups}[axis])
    total = sizes.n * (groups if axis == "group" else 1)
    rows = max(1, min(power(total), tile // members))
    return Blocks((_ceil(total, rows), 1), warps, {**_numbers(sizes), "ROWS": rows, "MEMBERS": members})


def cells_blocks(sizes: Sizes, config: Config | None = None) -> Blocks:
    """Of a kernel that computes small values from others."""
    tile, warps = config or _SMALL
    planes = sizes.n * sizes.c
    lanes = min(tile, power(planes))
    return Blocks((_ceil(planes, lanes), 1), warps, {**_numbers(sizes), "LANES": lanes})


def _least_lanes(sizes: Sizes, members: int) -> int:
    """channels_last: a sector of memory at least, lest most of what is read goes to waste."""
    sector = min(_SECTOR_BYTES // sizes.item_bytes, power(sizes.c)) if sizes.nhwc else 1
    return max(power(members), sector)


def least_slab(sizes: Sizes, members: int) -> int:
    """Elements of the smallest tile that holds a slab: the planes of ``members`` channels of a sample."""
    return _least_lanes(sizes, members) * power(sizes.s)


def holds_slab(sizes: Sizes, members: int, reads: int) -> bool:
    """Whether one program can hold a slab of each of the ``reads`` tensors, in registers."""
    if sizes.nhwc and members != power(members):
        return False  # channels that are not next to each other are read one by one
    return least_slab(sizes, members) <= _SLAB_ELEMENTS[max(reads, 1)]


def slab_config(sizes: Sizes, members: int) -> Config:
    tile = max(least_slab(sizes, members), _TILE)
    return Config(tile, min(16, tile // (_THREAD_ELEMENTS * _THREADS)))


def slab_blocks(sizes: Sizes, members: int, config: Config | None = None) -> Blocks:
    """Of a kernel that reads the tensor once and holds whole slabs."""
    tile, warps = config or slab_config(sizes, members)
    pad, span = power(members), power(sizes.s)
    slabs = sizes.c // members
    most = power(sizes.c) if sizes.nhwc else power(sizes.n * slabs) * pad
    lanes = max(_least_lanes(sizes, members), min(tile // span, most))
    programs = sizes.n * _ceil(slabs, lanes // pad) if sizes.nhwc else _ceil(sizes.n * slabs, lanes // pad)
    own = {"M": members, "LANES": lanes, "SPAN": span, "PAD": pad}
    return Blocks((programs, 1), warps, {**_numbers(sizes), **own})

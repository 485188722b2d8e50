"""Block sizes and grids of generated kernels: by their class and the shapes, never by the candidate.

The defaults follow from counts, not from measurements on a device: 16 elements for each thread, a power of two of
channels that fills a memory sector, and enough programs for some on every multiprocessor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from layersearch.kernels.codegen.triton import Kernel, TritonSource

__all__ = [
    "Config",
    "Launch",
    "Sizes",
    "candidates",
    "class_key",
    "default_config",
    "ints",
    "planned",
    "work_floats",
]

_THREAD_ELEMENTS = 16
_WARP = 32
_TILE = 2048
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
_SMALL_TILE = 1024
_MAX_INT = 2**31


@dataclass(frozen=True)
class Sizes:
    """N, C, H·W, channels of a group, bytes of an element, and whether the memory is channels_last."""

    n: int
    c: int
    s: int
    per_group: int
    item_bytes: int
    nhwc: bool

    @property
    def is_addressable(self) -> bool:
        """Whether indices of planes and within a sample fit 32 bits, in which they are computed."""
        return self.n * self.c < _MAX_INT and self.c * self.s < _MAX_INT


@dataclass(frozen=True)
class Config:
    """``tile``: elements of a program at a time, a power of two; ``warps`` of 32 threads."""

    tile: int
    warps: int


@dataclass(frozen=True)
class Launch:
    """A kernel with the number of its programs, block sizes, warps, and the parts a sweep makes of every plane."""

    kernel: Kernel
    grid: tuple[int, int]
    blocks: Mapping[str, int | bool]
    warps: int
    parts: int = 1


def power(n: int) -> int:
    """The least power of two that is not below ``n``."""
    return 1 << max(n - 1, 0).bit_length()


def unit(size: int) -> int:
    """The power of two, at most 8, that is taken out of a size: by 16 the compiler finds it itself."""
    return 1 if size % 16 == 0 else size & -size & 7 or 8


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def members(source: TritonSource, sizes: Sizes) -> int:
    """Channels of one slab."""
    return {"plane": 1, "group": sizes.per_group, "layer": sizes.c}[source.scope]


def holds_slab(source: TritonSource, sizes: Sizes) -> bool:
    """Whether one program can hold a slab, in registers."""
    per_slab = members(source, sizes)
    if source.slab is None or (sizes.nhwc and per_slab != power(per_slab)):
        return False  # channels that are not next to each other are read one by one
    tile = _least_lanes(per_slab, sizes) * power(sizes.s)
    return tile <= _SLAB_ELEMENTS[max(source.slab[0].reads, 1)]


def _least_lanes(per_slab: int, sizes: Sizes) -> int:
    """channels_last: a sector of memory at least, lest most of what is read goes to waste."""
    sector = min(_SECTOR_BYTES // sizes.item_bytes, power(sizes.c)) if sizes.nhwc else 1
    return max(power(per_slab), sector)


def default_config(kernel: Kernel, source: TritonSource, sizes: Sizes) -> Config:
    """What is used where nothing was measured."""
    if kernel.kind == "sweep":
        return Config(_TILE if kernel.sums < _MANY_SUMS else _TILE // 2, _TILE // (_THREAD_ELEMENTS * _WARP))
    if kernel.kind == "slab":
        tile = max(_least_lanes(members(source, sizes), sizes) * power(sizes.s), _TILE)
        return Config(tile, min(16, tile // (_THREAD_ELEMENTS * _WARP)))
    return Config(_SMALL_TILE, 4)


def candidates(kernel: Kernel, source: TritonSource, sizes: Sizes) -> list[Config]:
    """What is worth measuring, the default first. Kernels of small values are not: their time is that of a launch."""
    default = default_config(kernel, source, sizes)
    if kernel.kind == "sweep":
        others = [Config(tile, warps) for tile in (1024, 2048, 4096, 8192) for warps in (4, 8)]
    elif kernel.kind == "slab":
        least = _least_lanes(members(source, sizes), sizes) * power(sizes.s)
        tiles = {max(least, tile) for tile in (1024, 2048, 4096)}
        others = [Config(t, w) for t in sorted(tiles) for w in (4, 8, 16) if t // w <= 32 * _WARP]
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
    kernels = source.slab if source.slab is not None and holds_slab(source, sizes) else source.staged
    found: list[Launch] = []
    parts = (1, 1)
    for kernel in kernels:
        if kernel.kind == "merge" and parts[0] == 1:
            continue
        made = _launch(kernel, source, sizes, config(kernel), parts)
        if kernel.kind == "sweep" and kernel.sums:
            parts = (made.parts, int(made.blocks["SPAN"]) * int(made.blocks["STEPS"]))
        found.append(made)
    return found


def work_floats(source: TritonSource, sizes: Sizes, launches: list[Launch]) -> int:
    """Size of the workspace: small values, and behind them the parts of split planes."""
    split = max((made.kernel.sums * made.parts for made in launches if made.parts > 1), default=0)
    return source.work.size(sizes.n, sizes.c) + split * sizes.n * sizes.c


def ints(kernel: Kernel, source: TritonSource, sizes: Sizes) -> dict[str, int]:
    """The sizes that a kernel takes as numbers."""
    values = {
        "N": sizes.n,
        "CG": sizes.per_group,
        "M": members(source, sizes),
        "c_units": sizes.c // unit(sizes.c),
        "s_units": sizes.s // unit(sizes.s),
    }
    return {name: value for name, value in values.items() if name in kernel.arguments}


def _launch(kernel: Kernel, source: TritonSource, sizes: Sizes, config: Config, parts: tuple[int, int]) -> Launch:
    """``parts``: how many parts the sweep before a ``merge`` made of a plane, and the pixels in each."""
    planes = sizes.n * sizes.c
    blocks: dict[str, int | bool] = {
        "NHWC": sizes.nhwc,
        "C_UNIT": unit(sizes.c),
        "S_UNIT": unit(sizes.s),
    }
    count = 1
    if kernel.kind == "sweep":
        lanes, span, steps = _sweep(kernel, sizes, config)
        count = _ceil(sizes.s, span * steps)
        blocks |= {"LANES": lanes, "SPAN": span, "STEPS": steps, "SPLIT": count > 1}
        grid = (sizes.n * _ceil(sizes.c, lanes) if sizes.nhwc else _ceil(planes, lanes), count)
    elif kernel.kind == "slab":
        per_slab = members(source, sizes)
        pad, span = power(per_slab), power(sizes.s)
        least = _least_lanes(per_slab, sizes)
        most = power(sizes.c) if sizes.nhwc else power(planes // per_slab) * pad
        lanes = max(least, min(config.tile // span, most))
        blocks |= {"LANES": lanes, "SPAN": span, "PAD": pad}
        held = lanes // pad
        each = sizes.c // per_slab
        grid = (sizes.n * _ceil(each, held) if sizes.nhwc else _ceil(sizes.n * each, held), 1)
    elif kernel.kind == "merge":
        lanes = min(128, power(planes))
        blocks |= {"LANES": lanes, "SPAN": parts[1], "STEPS": power(parts[0])}
        grid = (_ceil(planes, lanes), 1)
    elif kernel.kind == "columns":
        columns = min(8, power(sizes.c))
        rows = max(1, min(power(sizes.n), config.tile // columns))
        columns = max(columns, min(config.tile // rows, 32, power(sizes.c)))
        blocks |= {"ROWS": rows, "COLUMNS": columns, "STEPS": power(_ceil(sizes.n, rows))}
        grid = (_ceil(sizes.c, columns), 1)
    elif kernel.kind == "rows":
        groups = sizes.c // sizes.per_group
        held = power({"group": sizes.per_group, "layer": sizes.c, "groups": groups}[kernel.axis])
        over = sizes.n * (groups if kernel.axis == "group" else 1)
        rows = max(1, min(power(over), config.tile // held))
        blocks |= {"ROWS": rows, "MEMBERS": held}
        grid = (_ceil(over, rows), 1)
    else:
        lanes = min(config.tile, power(planes))
        blocks |= {"LANES": lanes}
        grid = (_ceil(planes, lanes), 1)
    return Launch(kernel, grid, {k: v for k, v in blocks.items() if k in kernel.arguments}, config.warps, count)


def _sweep(kernel: Kernel, sizes: Sizes, config: Config) -> tuple[int, int, int]:
    """Lanes, elements in each at a time, and how many times."""
    if sizes.nhwc:
        lanes = min(power(sizes.c), max(1, 4 * _SECTOR_BYTES // sizes.item_bytes), config.tile)
        span = min(power(sizes.s), config.tile // lanes)
        programs = sizes.n * _ceil(sizes.c, lanes)
    else:
        span = min(power(sizes.s), config.tile)
        lanes = min(power(sizes.n * sizes.c), config.tile // span)
        programs = _ceil(sizes.n * sizes.c, lanes)
    if not kernel.sums:
        return lanes, span, 1
    steps = min(power(_ceil(sizes.s, span)), _MAX_STEPS)
    while steps > _LEAST_STEPS and programs * _ceil(sizes.s, span * steps) < _PROGRAMS:
        steps //= 2
    return lanes, span, steps

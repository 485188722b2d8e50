"""Grouped quotients of polynomials as Triton kernels: any float dtype in and out, float32 inside, no atomics.

Backward keeps one sum per coefficient and element of a tile in registers while it walks down its rows, adds them up at
the end, and stores them; a second reduction adds up the tiles in an order that the shapes decide. Equal input gives
equal bits.

Where groups are short runs (channels last), a tile is a strip of channels times some rows, each channel with the
coefficients of its own group: the strip need not match the group, so that no lane is idle whatever its width. Where
they are long runs, a tile is a part of one run. Only x is kept for backward.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.codegen.triton import Kernel
from layersearch.kernels.launch import Launch, jit, run
from layersearch.kernels.quotient.shape import Degrees, Extents

__all__ = ["QuotientText", "TritonQuotient", "plan", "quotient_text"]

_PROGRAMS = 132 * 8
"""Enough to fill a Hopper GPU; more rows per program than that need fewer partial sums."""
_MOST_STEPS = 64
_WARPS = 4


@dataclass(frozen=True)
class QuotientText:
    """The kernels of one pair of degrees."""

    forward_lanes: Kernel
    backward_lanes: Kernel
    forward_runs: Kernel
    backward_runs: Kernel


def _polynomials(degrees: Degrees, slopes: bool) -> list[str]:
    """``p``, ``q`` = P, x Q at ``u``; with ``slopes`` their derivatives ``dp``, ``dq``."""
    m, n = degrees.m, degrees.n
    lines = [f"p = a{m} * u + a{m - 1}", f"dp = a{m} + 0.0 * u"]
    for i in range(m - 2, -1, -1):
        lines += ["dp = dp * u + p", f"p = p * u + a{i}"]
    lines += [f"h = b{n} + 0.0 * u", "dh = 0.0 * u"]
    for j in range(n - 1, 0, -1):
        lines += ["dh = dh * u + h", f"h = h * u + b{j}"]
    lines += ["q = h * u", "dq = dh * u + h"]
    return [line for line in lines if slopes or not line.startswith("d")]


def _step(degrees: Degrees, backward: bool) -> list[str]:
    """One tile: ``at``, ``ok`` are its addresses; what it adds to sum k goes to ``s<k>``: 0 where g is not there."""
    lines = [
        "x = tl.load(x_ptr + at, mask=ok, other=0.0).to(tl.float32)",
        "u = tl.where(x > reach, reach, tl.where(x < -reach, -reach, x))",
        *_polynomials(degrees, backward),
        "r = 1.0 / (1.0 + tl.abs(q))",
        "y = p * r",
    ]
    if not backward:
        return [*lines, "tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=ok)"]
    lines += [
        "g = tl.load(g_ptr + at, mask=ok, other=0.0).to(tl.float32)",
        "f = y * tl.where(q > 0.0, 1.0, tl.where(q < 0.0, -1.0, 0.0))",
        "t = g * r",
        "w = -t * f * u",
        "d = tl.where((x >= -reach) & (x <= reach), t * (dp - f * dq), 0.0)",
        "tl.store(out_ptr + at, d.to(out_ptr.dtype.element_ty), mask=ok)",
    ]
    for i in range(degrees.m + 1):
        lines += [f"s{i} += t", "t = t * u"]
    for j in range(degrees.n):
        lines += [f"s{degrees.m + 1 + j} += w", "w = w * u"]
    return lines


def _kernel(degrees: Degrees, backward: bool, lanes: bool) -> Kernel:
    n, count = degrees.n, degrees.count
    shared = [f"a{i} = tl.load(a_ptr + {i})" for i in range(degrees.m + 1)]
    if lanes:
        place = "lane // inner"
        shape = "(ROWS, LANES)"
        head = [
            "lane = tl.program_id(1) * LANES + tl.arange(0, LANES)",
            "has = lane < row",
            f"mine = ({place}) * {n}",
            *[f"b{j} = tl.load(b_ptr + mine + {j - 1}, mask=has, other=0.0)[None, :]" for j in range(1, n + 1)],
        ]
        where = [
            "r = tl.program_id(0) * (ROWS * STEPS) + step * ROWS + tl.arange(0, ROWS)",
            "ok = (r < outer)[:, None] & has[None, :]",
            "at = r.to(tl.int64)[:, None] * row + lane[None, :]",
        ]
        store = [
            f"tl.store(part_ptr + (tl.program_id(0).to(tl.int64) * {count} + {k}) * row + lane, "
            f"tl.sum(s{k}, axis=0), mask=has)"
            for k in range(count)
        ]
        numbers, blocks = ["outer", "row", "inner"], ["ROWS", "LANES", "STEPS"]
    else:
        shape = "(BLOCK,)"
        head = [
            "run = tl.program_id(1)",
            f"mine = (run % groups) * {n}",
            *[f"b{j} = tl.load(b_ptr + mine + {j - 1})" for j in range(1, n + 1)],
        ]
        where = [
            "i = tl.program_id(0) * (BLOCK * STEPS) + step * BLOCK + tl.arange(0, BLOCK)",
            "ok = i < inner",
            "at = run.to(tl.int64) * inner + i",
        ]
        store = [
            f"tl.store(part_ptr + (run.to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * {count} + {k}, "
            f"tl.sum(s{k}, axis=0))"
            for k in range(count)
        ]
        numbers, blocks = ["inner", "groups"], ["BLOCK", "STEPS"]
    body = [*shared, *head]
    if backward:
        body += [f"s{k} = tl.full({shape}, 0.0, tl.float32)" for k in range(count)]
    body += ["for step in range(STEPS):", *(f"    {line}" for line in [*where, *_step(degrees, backward)])]
    tensors = ["x_ptr", "a_ptr", "b_ptr", "out_ptr"]
    if backward:
        body += store
        tensors = ["g_ptr", *tensors, "part_ptr"]
    name = f"quotient_{'backward' if backward else 'forward'}_{'lanes' if lanes else 'runs'}"
    varying = tuple(word for word in numbers if word in ("outer", "groups") or (lanes and word == "inner"))
    return jit(name, [*tensors, *numbers, "reach"], blocks, body, (*varying, "reach"))


def quotient_text(degrees: Degrees) -> QuotientText:
    return QuotientText(
        forward_lanes=_kernel(degrees, backward=False, lanes=True),
        backward_lanes=_kernel(degrees, backward=True, lanes=True),
        forward_runs=_kernel(degrees, backward=False, lanes=False),
        backward_runs=_kernel(degrees, backward=True, lanes=False),
    )


def _power(value: int) -> int:
    """The least power of two that is not below ``value``."""
    return 1 << max(0, value - 1).bit_length()


def plan(text: QuotientText, extents: Extents, reach: float, backward: bool, itemsize: int) -> tuple[Launch, int]:
    """The launch for these extents, and the number of parts that each sum comes in."""
    # Forward: 16 bytes of a thread. Backward: 4 elements and their sums take 80 to 119 registers (5/4, sm_90); with 8,
    # half as many threads would fit.
    tile = _WARPS * 32 * (4 if backward else 16 // itemsize)
    if extents.has_long_runs:
        block = min(tile, _power(extents.inner))
        n_runs = extents.outer * extents.groups
        steps = _steps(extents.inner, block, n_runs)
        chunks = -(-extents.inner // (block * steps))
        kernel = text.backward_runs if backward else text.forward_runs
        numbers: dict[str, int | float] = {"inner": extents.inner, "groups": extents.groups, "reach": reach}
        blocks: dict[str, int | str] = {"BLOCK": block, "STEPS": steps}
        return Launch(kernel, (chunks, n_runs), _WARPS, numbers, blocks), chunks
    lanes = min(128, _power(extents.row))
    rows = min(tile // lanes, _power(extents.outer))
    strips = -(-extents.row // lanes)
    steps = _steps(extents.outer, rows, strips)
    n_blocks = -(-extents.outer // (rows * steps))
    kernel = text.backward_lanes if backward else text.forward_lanes
    numbers = {"outer": extents.outer, "row": extents.row, "inner": extents.inner, "reach": reach}
    blocks = {"ROWS": rows, "LANES": lanes, "STEPS": steps}
    return Launch(kernel, (n_blocks, strips), _WARPS, numbers, blocks), n_blocks


def _steps(size: int, tile: int, others: int) -> int:
    """Tiles in a row for one program: a power of two, so that few kernels are compiled."""
    return min(_MOST_STEPS, _power(max(1, size * others // (tile * _PROGRAMS))))


class TritonQuotient:
    """Forward and backward for one pair of degrees; see ``CQuotient``. x, g and the results may be half precision.

    Kernels are compiled, or found in Triton's cache, at the first run of a class of shapes.
    """

    def __init__(self, degrees: Degrees) -> None:
        self._degrees, self._text = degrees, quotient_text(degrees)

    def forward(self, x: Tensor, a: Tensor, b: Tensor, reach: float, extents: Extents) -> Tensor:
        y = torch.empty_like(x)
        launch, _ = plan(self._text, extents, reach, False, x.element_size())
        run(launch, {"x_ptr": x, "a_ptr": a, "b_ptr": b, "out_ptr": y})
        return y

    def backward(
        self, g: Tensor, x: Tensor, a: Tensor, b: Tensor, reach: float, extents: Extents
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, a and b."""
        dx, count, shared = torch.empty_like(x), self._degrees.count, self._degrees.m + 1
        launch, n_parts = plan(self._text, extents, reach, True, x.element_size())
        long = extents.has_long_runs
        size = (extents.outer, extents.groups, n_parts, count) if long else (n_parts, count, extents.row)
        parts = torch.empty(size, dtype=torch.float32, device=x.device)
        run(launch, {"g_ptr": g, "x_ptr": x, "a_ptr": a, "b_ptr": b, "out_ptr": dx, "part_ptr": parts})
        if long:
            sums = parts.sum((0, 2)).t()
        else:
            sums = parts.sum(0).view(count, extents.groups, extents.inner).sum(2)
        return dx, sums[:shared].sum(1), sums[shared:].t().contiguous()

"""Gated lookups as Triton kernels: any float dtype in and out, float32 inside, no atomics.

Forward is one gather. Backward sorts the ids and cuts the sorted lookups into pieces: of one id, and of at most 64
lookups, so that an id that fills half of the batch is no long tail. One kernel goes once through the gradients and
writes a sum per piece and the gradient of each gate; a second adds up the pieces of an id, where there are more than
one. Ids, not the order in which programs happen to run, decide what is added to what: equal input gives equal bits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.codegen.triton import Kernel
from layersearch.kernels.launch import Launch, jit, run
from layersearch.kernels.lookup.gradients import Gradients

__all__ = ["PIECE", "Pieces", "TritonLookup", "cut", "plan_backward", "plan_forward", "plan_sums", "row_launch"]

PIECE = 64
"""Most lookups in a piece."""
_WARPS = 4
_TILE = 512
"""Elements of a program: 16 bytes of a thread in float32."""


def _forward_kernel(has_gates: bool, has_values: bool) -> Kernel:
    gates = ["gates_ptr"] * has_gates + ["values_ptr"] * has_values
    body = [
        "i = tl.program_id(0) * TALL + tl.arange(0, TALL)",
        "j = tl.arange(0, LANES)",
        "ok = i < n",
        "id = tl.load(ids_ptr + i, mask=ok, other=0)",
        "inside = ok & (id >= 0) & (id < rows)",
        "lane = (j < D)[None, :]",
        "x = tl.load(table_ptr + id[:, None] * D + j[None, :], mask=inside[:, None] & lane, other=0.0).to(tl.float32)",
    ]
    if has_gates:
        body.append("w = tl.load(gates_ptr + i, mask=ok, other=0.0).to(tl.float32)")
    if has_values:
        body.append("v = tl.load(values_ptr + id, mask=inside, other=0.0).to(tl.float32)")
        body.append("w = w * v" if has_gates else "w = v")
    body += [
        "y = x * w[:, None]" if gates else "y = x",
        "y = tl.where(inside[:, None], y, float('nan'))",
        "at = i.to(tl.int64)[:, None] * D + j[None, :]",
        "tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=ok[:, None] & lane)",
    ]
    arguments = ["table_ptr", "ids_ptr", *gates, "out_ptr", "n", "rows"]
    return jit(_name("forward", has_gates, has_values), arguments, ["D", "LANES", "TALL"], body, ("n", "rows"))


def _pieces_kernel(has_gates: bool, has_values: bool, wanted: tuple[bool, bool, bool]) -> Kernel:
    """One sum per piece: of the rows' gradients (part), of the value gates' (some)."""
    gates = ["gates_ptr"] * has_gates + ["values_ptr"] * has_values
    to_table, to_gates, to_values = wanted
    dots = to_gates or to_values
    body = [
        "p = tl.program_id(0) * TALL + tl.arange(0, TALL)",
        "j = tl.arange(0, LANES)",
        "lane = (j < D)[None, :]",
        "there = p < pieces",
        "at = tl.load(start_ptr + p, mask=there, other=0)",
        "end = tl.load(start_ptr + p + 1, mask=there, other=0)",
        "id = tl.load(sorted_ptr + at, mask=there, other=0)",
        "inside = there & (id >= 0) & (id < rows)",
    ]
    if dots:
        where = "table_ptr + id[:, None] * D + j[None, :], mask=inside[:, None] & lane, other=0.0"
        body.append(f"row = tl.load({where}).to(tl.float32)")
    if has_values:
        body.append("v = tl.load(values_ptr + id, mask=inside, other=0.0).to(tl.float32)")
    if to_table:
        body.append("s = tl.full((TALL, LANES), 0.0, tl.float32)")
    if to_values:
        body.append("t = tl.full((TALL,), 0.0, tl.float32)")
    loop = [
        "ok = at < end",
        "i = tl.load(order_ptr + at, mask=ok, other=0)",
        "g = tl.load(g_ptr + i[:, None] * D + j[None, :], mask=ok[:, None] & lane, other=0.0).to(tl.float32)",
    ]
    if has_gates:
        loop.append("w = tl.load(gates_ptr + i, mask=ok, other=0.0).to(tl.float32)")
    if to_table:
        factors = ["w"] * has_gates + ["v"] * has_values
        weight = f"({' * '.join(factors)})[:, None]" if factors else "1.0"
        loop.append(f"s += g * {weight}")
    if dots:
        loop.append("dot = tl.sum(g * row, axis=1)")
    if to_gates:
        each = "dot * v" if has_values else "dot"
        loop.append(f"tl.store(dgates_ptr + i, ({each}).to(dgates_ptr.dtype.element_ty), mask=ok)")
    if to_values:
        loop.append("t += dot * w" if has_gates else "t += dot")
    body += ["most = tl.max(end - at, axis=0)", "step = 0", "while step < most:"]
    body += [f"    {line}" for line in [*loop, "at += 1", "step += 1"]]
    if to_table:
        body.append("to = part_ptr + p.to(tl.int64)[:, None] * D + j[None, :]")
        body.append("tl.store(to, s.to(part_ptr.dtype.element_ty), mask=there[:, None] & lane)")
    if to_values:
        body.append("tl.store(some_ptr + p, t.to(some_ptr.dtype.element_ty), mask=there)")
    written = ["part_ptr"] * to_table + ["dgates_ptr"] * to_gates + ["some_ptr"] * to_values
    read = ["g_ptr", *(["table_ptr"] * dots), "sorted_ptr", "order_ptr", "start_ptr", *gates]
    name = _name("pieces", has_gates, has_values) + "".join(f"_{int(w)}" for w in wanted)
    return jit(name, [*read, *written, "pieces", "rows"], ["D", "LANES", "TALL"], body, ("pieces", "rows"))


def _sums_kernel() -> Kernel:
    """Sums of the pieces of each id."""
    loop = [
        "ok = (at < end)[:, None] & lane",
        "s += tl.load(part_ptr + at[:, None] * D + j[None, :], mask=ok, other=0.0)",
        "at += 1",
        "step += 1",
    ]
    body = [
        "u = tl.program_id(0) * TALL + tl.arange(0, TALL)",
        "j = tl.arange(0, LANES)",
        "lane = (j < D)[None, :]",
        "there = u < found",
        "at = tl.load(start_ptr + u, mask=there, other=0)",
        "end = tl.load(start_ptr + u + 1, mask=there, other=0)",
        "s = tl.full((TALL, LANES), 0.0, tl.float32)",
        "most = tl.max(end - at, axis=0)",
        "step = 0",
        "while step < most:",
        *(f"    {line}" for line in loop),
        "to = out_ptr + u.to(tl.int64)[:, None] * D + j[None, :]",
        "tl.store(to, s.to(out_ptr.dtype.element_ty), mask=there[:, None] & lane)",
    ]
    arguments = ["part_ptr", "start_ptr", "out_ptr", "found"]
    return jit("lookup_sums", arguments, ["D", "LANES", "TALL"], body, ("found",))


def _name(what: str, has_gates: bool, has_values: bool) -> str:
    return f"lookup_{what}" + "_gates" * has_gates + "_values" * has_values


def row_launch(kernel: Kernel, count: int, columns: int, numbers: dict[str, int | float]) -> Launch:
    """Programs of some rows each, ``count`` in all."""
    lanes = 1 << (columns - 1).bit_length()
    tall = max(1, _TILE // lanes)
    blocks: dict[str, int | str] = {"D": columns, "LANES": lanes, "TALL": tall}
    return Launch(kernel, (-(-count // tall),), _WARPS, numbers, blocks)


def plan_forward(n: int, rows: int, columns: int, has_gates: bool, has_values: bool) -> Launch:
    return row_launch(_forward_kernel(has_gates, has_values), n, columns, {"n": n, "rows": rows})


def plan_backward(
    pieces: int, rows: int, columns: int, has_gates: bool, has_values: bool, wanted: tuple[bool, bool, bool]
) -> Launch:
    """``wanted``: gradients of table, gates and values."""
    kernel = _pieces_kernel(has_gates, has_values, wanted)
    return row_launch(kernel, pieces, columns, {"pieces": pieces, "rows": rows})


def plan_sums(found: int, columns: int) -> Launch:
    return row_launch(_sums_kernel(), found, columns, {"found": found})


@dataclass(frozen=True)
class Pieces:
    """Lookups in order of their ids.

    Args:
        ids: sorted, ``[n]``.
        order: where each of them was.
        starts: first lookup of each piece, and ``n``.
        firsts: first piece of each id that occurs, and the number of pieces.
        rows: the ids that occur.
    """

    ids: Tensor
    order: Tensor
    starts: Tensor
    firsts: Tensor
    rows: Tensor


def cut(ids: Tensor) -> Pieces:
    """Waits for the device twice: how many rows occur decides the shape of the gradient."""
    n = len(ids)
    found, order = torch.sort(ids, stable=True)
    is_new = torch.ones(n, dtype=torch.bool, device=ids.device)
    is_new[1:] = found[1:] != found[:-1]
    begins = is_new | (torch.arange(n, device=ids.device) % PIECE == 0)
    starts = torch.nonzero(begins).view(-1)
    firsts = torch.nonzero(is_new[starts]).view(-1)
    rows = found[starts[firsts]]
    return Pieces(found, order, _closed(starts, n), _closed(firsts, len(starts)), rows)


def _closed(starts: Tensor, end: int) -> Tensor:
    return torch.cat([starts, starts.new_full((1,), end)])


class TritonLookup:
    """Forward and backward for rows of so many columns; see ``CLookup``. Tables, gates and gradients may be half
    precision.

    Kernels are compiled, or found in Triton's cache, at their first run. An id outside the table gives NaN.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns

    @staticmethod
    def takes(ids: Tensor, table: Tensor, *gates: Tensor) -> bool:
        return max(len(table), ids.numel()) < 2**31

    def forward(self, table: Tensor, ids: Tensor, gates: Tensor | None, values: Tensor | None) -> Tensor:
        y = table.new_empty(len(ids), self._columns)
        launch = plan_forward(len(ids), len(table), self._columns, gates is not None, values is not None)
        run(launch, _present({"table_ptr": table, "ids_ptr": ids, "gates_ptr": gates, "values_ptr": values}, out_ptr=y))
        return y

    def backward(
        self,
        g: Tensor,
        table: Tensor,
        ids: Tensor,
        gates: Tensor | None,
        values: Tensor | None,
        wanted: tuple[bool, bool, bool],
    ) -> Gradients:
        pieces = cut(ids)
        n_pieces, n_found = len(pieces.starts) - 1, len(pieces.rows)
        is_whole = n_pieces == n_found

        def of(like: Tensor | None, is_wanted: bool, *size: int, is_part: bool = True) -> Tensor | None:
            if like is None or not is_wanted:
                return None
            return like.new_empty(size, dtype=torch.float32 if is_part and not is_whole else like.dtype)

        part = of(table, wanted[0], n_pieces, self._columns)
        some = of(values, wanted[2], n_pieces)
        dgates = of(gates, wanted[1], len(ids), is_part=False)
        launch = plan_backward(n_pieces, len(table), self._columns, gates is not None, values is not None, wanted)
        read = {"g_ptr": g, "table_ptr": table, "sorted_ptr": pieces.ids, "order_ptr": pieces.order}
        read |= {"start_ptr": pieces.starts, "gates_ptr": gates, "values_ptr": values}  # type: ignore[dict-item]
        run(launch, _present(read, part_ptr=part, dgates_ptr=dgates, some_ptr=some))
        if part is not None and not is_whole:
            part = _added(part, pieces, table.dtype)
        if some is not None and values is not None and not is_whole:
            some = _added(some, pieces, values.dtype)
        return Gradients(pieces.rows, part, dgates, some)


def _added(part: Tensor, pieces: Pieces, dtype: torch.dtype) -> Tensor:
    out = torch.empty(len(pieces.rows), *part.shape[1:], dtype=dtype, device=part.device)
    columns = part.shape[1] if part.dim() == 2 else 1
    run(plan_sums(len(out), columns), {"part_ptr": part, "start_ptr": pieces.firsts, "out_ptr": out})
    return out


def _present(tensors: "dict[str, Tensor] | dict[str, Tensor | None]", **more: Tensor | None) -> dict[str, Tensor]:
    return {name: t for name, t in {**tensors, **more}.items() if t is not None}

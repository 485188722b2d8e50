"""Gated lookups of embeddings: rows of a table times gates in one pass, and gradients of only the rows that occur.

On the CPU the lowerings ``c`` and ``torch`` give the same bits in float32, so that a training does not depend on
whether the machine has a compiler: sums over the occurrences of a row go in order of occurrence, sums over columns by
halves. Triton adds up occurrences in blocks: equal bits for equal input, equal to the others within rounding.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layersearch.errors import BadInputError, KernelError
from layersearch.kernels.lookup.gradients import Gradients
from layersearch.primitives.layers._lowered import chosen, is_eager
from layersearch.primitives.lowering.base import say_once

__all__ = ["gated_lookup"]

_KERNEL_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def gated_lookup(
    table: Tensor,
    ids: Tensor,
    gates: Tensor | None = None,
    value_gates: Tensor | None = None,
    *,
    padding: int | None = None,
    lowering: str = "auto",
) -> Tensor:
    """``y[…] = g[…] v[ids[…]] table[ids[…]]``: rows times a gate per lookup or field, and a gate per row.

    Half precision is computed in float32 and rounded once. Gradients of ``table`` and ``value_gates`` are sparse, with
    rising indices and one entry per row that occurs; that of ``gates`` is dense. No atomics: equal input gives equal
    bits.

    Args:
        table: ``[rows, columns]``.
        ids: integers ``[…]``, for example ``[N, fields]``.
        gates: ``g``, of a shape that expands to that of ``ids``: ``[fields]`` for a gate per field; None is 1.
        value_gates: ``v``, ``[rows]``; None is 1.
        padding: a row that gets no gradient.
        lowering: ``auto``, ``c``, ``torch`` or ``triton``.
    Returns: ``[…, columns]``, dtype of ``table``.
    Raises: BadInputError for shapes that do not fit or an id outside the table (on CUDA: NaN); KernelError if a
        lowering that was named cannot be built.
    """
    if table.dim() != 2 or (value_gates is not None and value_gates.shape != table.shape[:1]):
        found = None if value_gates is None else list(value_gates.shape)
        raise BadInputError(
            f"a lookup needs a table [rows, columns] and gates [rows], got {list(table.shape)} and {found}; reshape"
        )
    if gates is not None:
        try:
            gates = gates.expand(ids.shape)
        except RuntimeError:
            raise BadInputError(
                f"gates must expand to the shape of ids {list(ids.shape)}, got {list(gates.shape)}; add axes"
            ) from None
    if ids.device.type == "cpu" and ids.numel() and is_eager(ids):
        low, high = (int(t) for t in torch.aminmax(ids))
        if low < 0 or high >= len(table):
            raise BadInputError(
                f"ids must be in [0, {len(table)}), got {low} to {high}; encode rows by this vocabulary"
            )
    if not is_eager(table) or not is_eager(ids):
        return _plain(table, ids, gates, value_gates, padding)
    by = _by(lowering, table, ids, gates, value_gates)
    if torch.is_grad_enabled():
        y: Tensor = _Lookup.apply(table, ids, gates, value_gates, padding, by)  # type: ignore[no-untyped-call]
        return y
    return _forward(table, ids, gates, value_gates, by)


def _by(lowering: str, table: Tensor, ids: Tensor, gates: Tensor | None, value_gates: Tensor | None) -> str:
    by = chosen(lowering, table) if ids.numel() else "torch"
    held = [t for t in (table, gates, value_gates) if t is not None]
    if any(t.dtype not in _KERNEL_TYPES or t.device != ids.device for t in held) or by == "torch":
        return "torch"
    made = _built(by, table.shape[1])
    if isinstance(made, str):
        if lowering != "auto":
            raise KernelError(made)
        say_once(made)
        return "torch"
    return by if made.takes(ids, *held) else "torch"


@functools.cache
def _built(by: str, columns: int) -> Any:
    """The kernels for rows of so many columns, or why there are none."""
    try:
        if by == "c":
            from layersearch.kernels.lookup.c import CLookup

            return CLookup(columns)
        from layersearch.kernels.lookup.triton import TritonLookup

        return TritonLookup(columns)
    except KernelError as error:
        return str(error)


def _weights(ids: Tensor, gates: Tensor | None, values: Tensor | None) -> Tensor | None:
    """The factor of each lookup, at least float32."""
    g = None if gates is None else _wide(gates)
    v = None if values is None else _wide(values)[ids]
    if g is None or v is None:
        return g if v is None else v
    return g * v


def _wide(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t


def _plain(
    table: Tensor, ids: Tensor, gates: Tensor | None, values: Tensor | None, padding: int | None = None
) -> Tensor:
    """Op by op: what is traced, and what can be differentiated again."""
    rows = _wide(F.embedding(ids, table, padding_idx=padding))
    w = _weights(ids, gates, values)
    return (rows if w is None else rows * w.unsqueeze(-1)).to(table.dtype)


def _forward(table: Tensor, ids: Tensor, gates: Tensor | None, values: Tensor | None, by: str) -> Tensor:
    if by == "torch":
        return _plain(table, ids, gates, values)
    flat = ids.reshape(-1).long()
    g = None if gates is None else gates.reshape(-1)
    v = None if values is None else values.contiguous()
    y: Tensor = _built(by, table.shape[1]).forward(table.contiguous(), flat, g, v)
    return y.view(*ids.shape, table.shape[1])


def _gradients(
    g: Tensor,
    table: Tensor,
    ids: Tensor,
    gates: Tensor | None,
    values: Tensor | None,
    wanted: tuple[bool, bool, bool],
    by: str,
) -> Gradients:
    flat = ids.reshape(-1).long()
    each = None if gates is None else gates.reshape(-1)
    upstream = g.reshape(-1, table.shape[1])
    if by == "torch":
        return _torch_gradients(upstream, table, flat, each, values, wanted)
    v = None if values is None else values.contiguous()
    found: Gradients = _built(by, table.shape[1]).backward(
        upstream.contiguous(), table.contiguous(), flat, each, v, wanted
    )
    return found


def _torch_gradients(
    g: Tensor,
    table: Tensor,
    ids: Tensor,
    gates: Tensor | None,
    values: Tensor | None,
    wanted: tuple[bool, bool, bool],
) -> Gradients:
    """The sums of the C kernel, in its order."""
    wide = _wide(g)
    rows = dtable = dgates = dvalues = None
    if wanted[0]:
        w = _weights(ids, gates, values)
        rows, dtable = _summed(ids, wide if w is None else wide * w.unsqueeze(-1), len(table))
        dtable = dtable.to(table.dtype)
    if wanted[1] or wanted[2]:
        dots = _halved(wide * _wide(table[ids]))
        if gates is not None and wanted[1]:
            dgates = (dots if values is None else dots * _wide(values)[ids]).to(gates.dtype)
        if values is not None and wanted[2]:
            rows, dvalues = _summed(ids, dots if gates is None else dots * _wide(gates), len(table))
            dvalues = dvalues.to(values.dtype)
    return Gradients(ids.new_empty(0) if rows is None else rows, dtable, dgates, dvalues)


def _summed(ids: Tensor, each: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Rows that occur and the sums over their occurrences."""
    if ids.device.type == "cpu":  # in order of occurrence, which coalesce does not promise
        rows, place = torch.unique(ids, return_inverse=True)
        return rows, each.new_zeros(len(rows), *each.shape[1:]).index_add_(0, place, each)
    size = (n, *each.shape[1:])
    found = torch.sparse_coo_tensor(ids.unsqueeze(0), each, size, check_invariants=False).coalesce()
    return found.indices()[0], found.values()


def _halved(products: Tensor) -> Tensor:
    """Sums of the last axis: the second half is added to the first until one column is left."""
    columns = products.shape[-1]
    width = 1 << (columns - 1).bit_length()
    products = F.pad(products, (0, width - columns))
    while width > 1:
        width //= 2
        products = products[..., :width] + products[..., width:]
    return products.squeeze(-1)


class _Lookup(torch.autograd.Function):
    """A backward pass that is to be differentiated again goes op by op, with dense gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        ids: Tensor,
        gates: Tensor | None,
        values: Tensor | None,
        padding: int | None,
        by: str,
    ) -> Tensor:
        ctx.padding, ctx.by = padding, by
        ctx.save_for_backward(table, ids, gates, values)
        return _forward(table, ids, gates, values, by)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        table, ids, gates, values = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.needs_input_grad[3])
        if torch.is_grad_enabled():
            dtable, dgates, dvalues = _differentiable(g, table, ids, gates, values, wanted, ctx.padding)
            return dtable, None, dgates, dvalues, None, None
        found = _gradients(g, table, ids, gates, values, wanted, ctx.by)
        dgates = None if found.gates is None else found.gates.view(ids.shape)
        rows, changes = found.rows, found.table
        if changes is not None and ctx.padding is not None:
            trained = rows != ctx.padding
            rows, changes = rows[trained], changes[trained]
        return _sparse(rows, changes, table), None, dgates, _sparse(found.rows, found.values, values), None, None


def _sparse(rows: Tensor, found: Tensor | None, like: Tensor | None) -> Tensor | None:
    if found is None or like is None:
        return None
    return torch.sparse_coo_tensor(rows.unsqueeze(0), found, like.shape, is_coalesced=True, check_invariants=False)


def _differentiable(
    g: Tensor,
    table: Tensor,
    ids: Tensor,
    gates: Tensor | None,
    values: Tensor | None,
    wanted: tuple[bool, bool, bool],
    padding: int | None,
) -> tuple[Tensor | None, ...]:
    held = [t if t is None or t.requires_grad else t.detach().requires_grad_() for t in (table, gates, values)]
    asked = [t for t, is_wanted in zip(held, wanted, strict=True) if t is not None and is_wanted]
    assert held[0] is not None
    y = _plain(held[0], ids, held[1], held[2], padding)
    found = iter(torch.autograd.grad(y, asked, g, create_graph=True))
    return tuple(next(found) if is_wanted else None for is_wanted in wanted)

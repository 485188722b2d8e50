"""The gated lookup on a GPU: right first, then against the time of its bytes, by size of the table."""

from itertools import product

import torch
from gpu_timing import Bench, Row, captured, first_line
from torch import Tensor
from torch.nn import functional as F

from layersearch.kernels.codegen._triton_load import why_no_triton
from layersearch.primitives.ctr.lookup import gated_lookup

__all__ = ["lookups"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FIELDS = 39
BATCHES, TABLES, COLUMNS = (4096, 65_536), (250_000, 5_000_000), (16, 17)
SECTOR = 32
"""Bytes that are read at least, wherever they lie."""


def lookups(bench: Bench) -> list[Row]:
    """Rows of skewed ids of 39 fields times a gate per lookup. Floor: ids, gates and rows that occur read (at least 32
    bytes each), rows written, over the copy bandwidth; backward gradients, gates and rows read, sums and gradients of
    gates written, without the sort. Forward is a replayed CUDA graph; backward waits for the number of rows that
    occur, so it is launched. embedding: ``F.embedding(sparse=True)`` times gates, backward and ``coalesce``."""
    bench.note("goal: forward at least 0.6 of the floor at 2.6 M lookups (batch 65536)")
    rate = bench.facts.get("copy_bytes_per_s", float("nan"))
    why = why_no_triton()
    ways = ["embedding"] if bench.on_gpu and why is not None else ["fused", "embedding"]
    if why is not None:
        bench.note(f"no lowering triton: {why}")
    rows: list[Row] = []
    sizes = [(8, 1000, 16)] if bench.tiny else list(product(BATCHES, TABLES, COLUMNS))
    for (batch, n, columns), (name, dtype) in product(sizes, DTYPES.items()):
        if bench.late():
            bench.note(f"left out from batch {batch}, {n} rows, {name} on: the time of this section was spent")
            break
        table, ids, gates, upstream = _problem(bench, batch, n, columns, dtype)
        floors = {way: moved / rate for way, moved in _bytes(table, ids).items()}
        for by in ways:
            row: Row = {"lookups": ids.numel(), "table": n, "columns": columns, "dtype": name, "by": by}
            try:
                row |= _timed(bench, by, table, ids, gates, upstream, floors)
                if by == "fused":
                    row["relative error"] = _error(table, ids, gates, upstream)
            except Exception as error:
                bench.note(f"{by} failed at {batch}, {n}, {columns}, {name}: {first_line(error)}")
            rows.append(row)
        bench.release()
    return rows


def _problem(
    bench: Bench, batch: int, n: int, columns: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator(bench.device).manual_seed(7)
    shape = (batch, FIELDS)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=bench.device).to(dtype)

    size = n // FIELDS
    ids = (torch.rand(shape, generator=generator, device=bench.device) ** 3 * size).long()
    ids += torch.arange(FIELDS, device=bench.device) * size
    return draw(n, columns).requires_grad_(), ids, draw(*shape).requires_grad_(), draw(*shape, columns)


def _look(by: str, table: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
    if by == "fused":
        return gated_lookup(table, ids, gates)
    return F.embedding(ids, table, sparse=True) * gates.unsqueeze(-1)


def _timed(
    bench: Bench, by: str, table: Tensor, ids: Tensor, gates: Tensor, upstream: Tensor, floors: dict[str, float]
) -> Row:
    with captured(bench, lambda: _look(by, table, ids, gates)) as (forward, _):
        first = bench.medians({"forward": forward})["forward"]
    y = _look(by, table, ids, gates)

    def backward() -> Tensor:
        by_table, _ = torch.autograd.grad(y, [table, gates], upstream, retain_graph=True)
        return by_table.coalesce()

    second = bench.medians({"backward": backward})["backward"]
    found: Row = {}
    for way, seconds in (("forward", first), ("backward", second)):
        found[f"{way} µs"] = 1e6 * seconds
        found[f"{way}: of floor"] = floors[way] / seconds
    return found


def _bytes(table: Tensor, ids: Tensor) -> dict[str, float]:
    """A row that is looked up more than once is read once, as if the cache held it."""
    size, columns, n = table.element_size(), table.shape[1], ids.numel()
    row = columns * size
    read, distinct = max(row, SECTOR), len(torch.unique(ids))
    forward = n * (8 + size + row) + distinct * read
    backward = n * (8 + SECTOR + row + size) + distinct * (read + row + 8)
    return {"forward": forward, "backward": backward}


def _error(table: Tensor, ids: Tensor, gates: Tensor, upstream: Tensor) -> float:
    """The worst of the gradient and the output against float64 of torch, relative to their norms."""
    y = gated_lookup(table, ids, gates)
    (found,) = torch.autograd.grad(y, table, upstream)
    exact = F.embedding(ids, table.detach()).double() * gates.detach().double().unsqueeze(-1)
    arriving = upstream.double() * gates.detach().double().unsqueeze(-1)
    rows, place = torch.unique(ids, return_inverse=True)
    sums = torch.zeros(len(rows), table.shape[1], dtype=torch.float64, device=table.device)
    sums.index_add_(0, place.flatten(), arriving.flatten(0, 1))
    if not torch.equal(found.coalesce().indices()[0], rows):
        return float("inf")
    got = found.coalesce().values().double()
    return max(float((a - b).norm() / b.norm()) for a, b in ((y.detach().double(), exact), (got, sums)))

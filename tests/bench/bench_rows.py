"""What a step of a gated factorisation machine costs, by the number of values, and what preparing raw rows costs.

    python tests/bench/bench_rows.py --values 250000 1000000 5000000 --prepare 1000000

``fused``: rows times gates by the lookup kernel (lowering ``auto``), sparse gradients of the rows that occur,
``RowAdam`` (``auto``, too) for table and gates, price of the values that occur. ``torch rows``: the same with the torch
form of ``RowAdam``. ``embedding``: with ``F.embedding(sparse=True)`` and the product after it, op by op. ``dense``:
dense gradients, ``torch.optim.AdamW`` and the price of every gate, as in OptFS' published code; left out beyond
``--dense-up-to`` values. Median core-time of interleaved steps. With more values more of them are in a batch
(``distinct``): what ``fused`` grows by at least.

``--lookup`` times forward and backward of the lookup alone. ``--rows`` times ``catch_up`` and ``step`` of the table
alone, against ``floor``: ``index_select`` and ``index_copy_`` of as many rows, once of the table and once of a state of
as many bytes, without arithmetic. ``--prepare`` writes so many rows (13 numeric, 7
categorical columns) as CSV and reads them by a process of its own: rows per core-second, peak memory. 10,000,000 rows
take many minutes.
"""

import argparse
import csv
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import environment, interleaved, table
from torch import Tensor
from torch.nn import functional as F

from layersearch.primitives.ctr.lookup import gated_lookup
from layersearch.primitives.gates.continuation import Continuation
from layersearch.primitives.gates.gate_set import GateSet
from layersearch.primitives.gates.row_adam import RowAdam
from layersearch.primitives.gates.value import ValueGates
from layersearch.spaces.tasks.ctr.models.base import MODELS, ModelSettings
from layersearch.spaces.tasks.ctr.prepare import read_tables
from layersearch.spaces.tasks.ctr.schema import Column, Schema

FIELDS, DIM = 39, 16
STATE = 40
"""Numbers of four bytes that a row of ``DIM + 1`` columns has of state."""
NUMERIC, CATEGORICAL = 13, 7
CHUNK = 100_000


def _ids(size: int, batch: int, draw: torch.Generator) -> Tensor:
    """Skewed like real values: most lookups are of few rows."""
    return torch.arange(FIELDS) * size + (torch.rand(batch, FIELDS, generator=draw) ** 3 * size).long()


def _embedded(ids: Tensor, weight: Tensor, gates: Tensor | None) -> Tensor:
    """The lookup op by op."""
    rows = F.embedding(ids, weight, sparse=True)
    return rows if gates is None else rows * gates.unsqueeze(-1)


class _PlainGates(ValueGates):
    """Gates per value whose logits are looked up by torch's own operation."""

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.logits, sparse=True).squeeze(-1)


def step(values: int, batch: int, by: str) -> Callable[[], None]:
    """One training step, on other rows each time."""
    sparse = by != "dense"
    lowering = "torch" if by == "torch rows" else "auto"
    sizes = (values // FIELDS,) * FIELDS
    n = sum(sizes)
    torch.manual_seed(0)
    model = MODELS["fm"](sizes, ModelSettings(dim=DIM), sparse=sparse)
    gates = GateSet(("value",), sizes, Continuation(), sparse=sparse)
    if by == "embedding":
        gates._gates["value"] = _PlainGates(sizes, Continuation())
        weight = model.table.weight
        model.table.forward = lambda ids, gated=None: _embedded(ids, weight, gated)  # type: ignore[method-assign]
    logits = gates.gates["value"].logits
    counts = torch.full((n,), 50)
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (batch,), generator=draw).float()
    optimisers: list[torch.optim.Optimizer] = []
    if sparse:
        optimisers += [RowAdam([model.table.weight], weight_decay=1e-3, lowering=lowering)]
        optimisers += [RowAdam([logits], lowering=lowering)]
    else:
        optimisers += [torch.optim.AdamW([model.table.weight], weight_decay=1e-3), torch.optim.Adam([logits])]
    optimisers.append(torch.optim.Adam([model.bias]))

    def run() -> None:
        ids = _ids(sizes[0], batch, draw)
        for optimiser in optimisers:
            optimiser.zero_grad()
            if isinstance(optimiser, RowAdam):
                optimiser.catch_up(model.table.weight, ids)
        loss = F.binary_cross_entropy_with_logits(model(ids, gates(ids, 2.0)), labels)
        if sparse:
            loss = loss + gates.price(ids, 2.0, counts, 50 * n // FIELDS)
        else:
            loss = loss + gates.relaxation.price(logits, 2.0).sum() * (FIELDS / (50 * n))
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()

    run()
    _touch(optimisers)
    return run


def _touch(optimisers: list[torch.optim.Optimizer]) -> None:
    """Every page of state, which the system hands out at its first use: a cost that ends with the first epoch."""
    for optimiser in optimisers:
        for state in optimiser.state.values():
            for tensor in state.values():
                tensor.add_(0)


def lookup(values: int, batch: int, by: str) -> Callable[[], None]:
    """Forward and backward of the lookup alone, to the gradient that ``RowAdam`` needs: one entry per row."""
    drawing = torch.Generator().manual_seed(2)
    weight = torch.randn(values, DIM + 1, generator=drawing).requires_grad_()
    gates = torch.rand(batch, FIELDS, generator=drawing).requires_grad_()
    upstream = torch.randn(batch, FIELDS, DIM + 1, generator=drawing)

    def run() -> None:
        ids = _ids(values // FIELDS, batch, drawing)
        y = _embedded(ids, weight, gates) if by == "embedding" else gated_lookup(weight, ids, gates, lowering=by)
        by_weight, _ = torch.autograd.grad(y, [weight, gates], upstream)
        by_weight.coalesce()

    run()
    return run


def rows_alone(values: int, batch: int, by: str) -> Callable[[], None]:
    """``RowAdam`` alone on the rows of eight batches in turn; ``floor`` moves what it moves."""
    drawing = torch.Generator().manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(values, DIM + 1, generator=drawing))
    optimiser = RowAdam([weight], weight_decay=1e-3, lowering="torch" if by == "torch" else "auto")
    state = torch.ones(values, STATE) if by == "floor" else torch.empty(0)
    batches = itertools.cycle([_ids(values // FIELDS, batch, drawing) for _ in range(8)])
    found = {id(ids): torch.unique(ids) for ids, _ in zip(batches, range(8), strict=False)}
    drawn = torch.randn(batch * FIELDS, DIM + 1, generator=drawing)

    def run() -> None:
        ids = next(batches)
        rows = found[id(ids)]
        if by == "floor":
            for rows_of in (weight.data, state):
                rows_of.index_copy_(0, rows, rows_of.index_select(0, rows))
            return
        optimiser.catch_up(weight, ids)
        weight.grad = torch.sparse_coo_tensor(
            rows[None], drawn[: len(rows)], weight.shape, is_coalesced=True, check_invariants=False
        )
        optimiser.step()

    run()
    _touch([optimiser])
    return run


def _columns() -> list[Column]:
    numeric = [Column(f"n{i}", kind="numeric") for i in range(NUMERIC)]
    return [*numeric, *(Column(f"c{i}", min_count=5) for i in range(CATEGORICAL))]


def _write(path: Path, rows: int) -> None:
    """Log-normal numbers, one in ten missing; Zipf-like categories, up to a million values."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        csv.writer(file).writerow(["label", *(column.name for column in _columns())])
        for first in range(0, rows, CHUNK):
            n = min(CHUNK, rows - first)
            numbers = np.exp(rng.standard_normal((n, NUMERIC))).round(3).astype(str)
            numbers[rng.random((n, NUMERIC)) < 0.1] = ""
            most = 10.0 ** np.linspace(1, 6, CATEGORICAL)
            words = np.char.add("v", (most ** rng.random((n, CATEGORICAL))).astype(np.int64).astype(str))
            labels = rng.integers(0, 2, (n, 1)).astype(str)
            csv.writer(file).writerows(np.hstack([labels, numbers, words]).tolist())


def _prepare(path: Path) -> None:
    """In a process of its own, so that its peak of memory is that of preparing."""
    before, begun, wall = _peak(), time.process_time(), time.monotonic()
    data = read_tables(path, Schema("label", tuple(_columns())), cache=path.parent)
    seconds, elapsed = time.process_time() - begun, time.monotonic() - wall
    print(sum(data.sizes), seconds, elapsed, before, _peak(), sep="\t")


def _peak() -> float:
    """MiB; ``getrusage`` would give the peak of the parent, which Linux hands down."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def preparing(rows: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        _write(path, rows)
        size = path.stat().st_size / 1e6
        command = [sys.executable, __file__, "--prepare-file", str(path)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\t")
    values, seconds, elapsed, before, peak = (float(word) for word in told)
    return {
        "MB": size,
        "values": int(values),
        "core-s": seconds,
        "wall s": elapsed,
        "rows / core-s": rows / seconds,
        "MiB at start": before,
        "peak MiB": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, nargs="*", default=[250_000, 1_000_000, 5_000_000])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dense-up-to", type=int, default=1_000_000, help="values")
    parser.add_argument("--lookup", action="store_true", help="the lookup alone, too")
    parser.add_argument("--rows", action="store_true", help="RowAdam alone, too")
    parser.add_argument("--prepare", type=int, nargs="*", default=[], help="rows of synthetic CSV")
    parser.add_argument("--prepare-file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare_file is not None:
        _prepare(args.prepare_file)
        return
    torch.set_num_threads(1)
    print(environment())
    rows = {}
    for values in args.values:
        ways = ["fused", "torch rows", "embedding", *(["dense"] if values <= args.dense_up_to else [])]
        seconds = interleaved({name: step(values, args.batch, name) for name in ways}, args.rounds)
        row: dict[str, object] = {
            "distinct": len(torch.unique(_ids(values // FIELDS, args.batch, torch.Generator().manual_seed(1))))
        }
        row["fused ms"] = 1e3 * seconds["fused"]
        for name in ("torch rows", "embedding", "dense"):
            row[f"{name} / fused"] = seconds[name] / seconds["fused"] if name in seconds else "-"
        rows[f"{values:,} values"] = row
    if rows:
        table(f"a step, batch {args.batch} x {FIELDS} fields, {DIM} columns", rows)
    parts = (
        ("the lookup alone, forward and backward", args.lookup, lookup, ("auto", "embedding", "torch")),
        ("RowAdam alone", args.rows, rows_alone, ("auto", "torch", "floor")),
    )
    for title, is_wanted, made, ways in parts:
        if is_wanted:
            rows = {}
            for values in args.values:
                seconds = interleaved({name: made(values, args.batch, name) for name in ways}, args.rounds)
                row = {"auto ms": 1e3 * seconds["auto"]}
                rows[f"{values:,} values"] = row | {f"{n} / auto": seconds[n] / seconds["auto"] for n in ways[1:]}
            table(f"{title}, {DIM + 1} columns", rows)
    if args.prepare:
        table("preparing CSV", {f"{n:,} rows": preparing(n) for n in args.prepare})


if __name__ == "__main__":
    main()

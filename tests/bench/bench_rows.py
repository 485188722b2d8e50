"""What a step of a gated factorisation machine costs, by the number of values, and what preparing raw rows costs.

    python tests/bench/bench_rows.py --values 250000 1000000 5000000 --prepare 1000000

``fused``: rows times gates by the lookup kernel (lowering ``auto``), sparse gradients of the rows that occur, ``RowAdam``
for table and gates, price of the values that occur. ``embedding``: the same with ``F.embedding(sparse=True)`` and the
product after it, op by op. ``dense``: dense gradients, ``torch.optim.AdamW`` and the price of every gate, as in OptFS'
published code; left out where table, gradient and moments would not fit ``--dense-up-to``. Median core-time of
interleaved steps. With more values more of them are in a batch (``distinct``): what ``fused`` grows by.

``--lookup`` times forward and backward of the lookup alone. ``--prepare`` writes so many rows (13 numeric, 7 categorical
columns) as CSV and reads them by a process of its own: rows per core-second, peak memory. 10,000,000 rows take some minutes.
"""

import argparse
import csv
import resource
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
from layersearch.spaces.tasks.ctr.models.base import MODELS, ModelSettings

FIELDS, DIM = 39, 16


def _ids(size: int, batch: int, draw: torch.Generator) -> Tensor:
    """Skewed like real values: most lookups are of few rows."""
    return torch.arange(FIELDS) * size + (torch.rand(batch, FIELDS, generator=draw) ** 3 * size).long()


def step(values: int, batch: int, sparse: bool) -> Callable[[], None]:
    """One training step, on other rows each time."""
    sizes = (values // FIELDS,) * FIELDS
    n = sum(sizes)
    torch.manual_seed(0)
    model = MODELS["fm"](sizes, ModelSettings(dim=DIM), sparse=sparse)
    gates = GateSet(("value",), sizes, Continuation(), sparse=sparse)
    logits = gates.gates["value"].logits
    counts = torch.full((n,), 50)
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (batch,), generator=draw).float()
    optimisers: list[torch.optim.Optimizer] = []
    if sparse:
        optimisers += [RowAdam([model.table.weight], weight_decay=1e-3), RowAdam([logits])]
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
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    rows = {}
    for values in args.values:
        runs = {name: step(values, args.batch, name == "rows") for name in ("rows", "dense")}
        seconds = interleaved(runs, args.rounds)
        rows[f"{values:,} values"] = {
            "distinct": len(torch.unique(_ids(values // FIELDS, args.batch, torch.Generator().manual_seed(1)))),
            "rows ms": 1e3 * seconds["rows"],
            "dense ms": 1e3 * seconds["dense"],
            "dense / rows": seconds["dense"] / seconds["rows"],
        }
    table(f"a step, batch {args.batch} x {FIELDS} fields, {DIM} columns", rows)


if __name__ == "__main__":
    main()

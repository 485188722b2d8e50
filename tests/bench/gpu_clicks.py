"""Training steps of click models on a GPU: a table of a million rows, with and without gates that are learned."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch
from gpu_timing import Bench, Row, first_line
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.primitives.gates.row_adam import RowAdam
from layersearch.spaces.tasks.ctr.data import CTRData, Part
from layersearch.spaces.tasks.ctr.learning import Learner
from layersearch.spaces.tasks.ctr.models.base import ModelSettings
from layersearch.spaces.tasks.ctr.placed import Placed
from layersearch.spaces.tasks.ctr.settings import LearnSettings

__all__ = ["clicks"]

FIELDS, DIM, ROWS = 39, 16, 1_000_000
BATCHES = (4096, 65_536)
MODELS = ("fm", "dcn")
STEPS = 30
MOST_DRAWN = 2**18
"""Different rows: beyond, they come again."""
RATE = 1e-3


def clicks(bench: Bench) -> list[Row]:
    """Milliseconds of a training step, host work included: FM and DCN (two cross layers, perceptron 64-32) on 39 fields
    of skewed ids, embeddings of 16, rows held on the device. ours: ``Learner``, without gates and with a gate per value
    that is being learned (continuation, price). plain: ``nn.Embedding`` and its FM with Adam, dense or sparse. waits:
    how often the host waits for the device in a step. rows: ``RowAdam`` alone, on the rows that occur."""
    rows: list[Row] = []
    batches, n = ((64,), 3900) if bench.tiny else (BATCHES, ROWS)
    for batch in batches:
        placed = Placed(_data(n, batch * (2 * STEPS + 3)), bench.device)
        for name, make in _runs(placed, batch).items():
            if bench.late():
                bench.note("stopped early: the time of this section was spent")
                return rows
            row: Row = {"batch": batch, "table": n, "step": name}
            try:
                run = make()
                run(2)
                row |= _timed(bench, run, 2 if bench.tiny else STEPS)
            except Exception as error:
                bench.note(f"{name} failed at batch {batch}: {first_line(error)}")
            rows.append(row)
            bench.release()
    return rows


def _runs(placed: Placed, batch: int) -> dict[str, Callable[[], Callable[[int], None]]]:
    """By name what makes a training, which then takes a number of steps."""
    found: dict[str, Callable[[], Callable[[int], None]]] = {
        f"{model}, {what}": partial(_ours, placed, batch, model, gates)
        for model, (what, gates) in product(MODELS, {"no gates": (), "value gates": ("value",)}.items())
    }
    found |= {f"fm, plain {way}": partial(_plain, placed, batch, way) for way in ("dense", "sparse")}
    return found | {"rows": partial(_rows, placed, batch)}


def _timed(bench: Bench, run: Callable[[int], None], steps: int) -> Row:
    bench.synchronize()
    begun = time.perf_counter()
    run(steps)
    bench.synchronize()
    found: Row = {"ms": 1e3 * (time.perf_counter() - begun) / steps}
    if bench.on_gpu:
        found["waits"] = _waits(run, steps)
    return found


def _waits(run: Callable[[int], None], steps: int) -> float:
    """By torch's own count, of a run that reads its losses once more at its end."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run(steps)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(warning.message) for warning in said) / steps


def _data(n: int, rows: int) -> CTRData:
    rng = np.random.default_rng(0)
    size = n // FIELDS

    def part(count: int) -> Part:
        drawn = min(count, MOST_DRAWN)
        ids = (np.arange(FIELDS) * size + (rng.random((drawn, FIELDS)) ** 3 * size).astype(np.int64)).astype(np.int32)
        return Part(np.resize(ids, (count, FIELDS)), rng.integers(0, 2, count).astype(np.uint8))

    return CTRData("synthetic", tuple(f"f{i}" for i in range(FIELDS)), (size,) * FIELDS, part(rows), part(64), part(64))


def _ours(placed: Placed, batch: int, model: str, gates: tuple[str, ...]) -> Callable[[int], None]:
    settings = LearnSettings(
        model=model,
        sizes=ModelSettings(dim=DIM),
        gates=gates,
        warm_epochs=0,
        rewind_epoch=0,
        batch=batch,
        lr=RATE,
    )
    learner = Learner(placed.data, settings, placed=placed)
    return lambda steps: learner.run(max_steps=steps) and None


class _PlainFM(nn.Module):
    """As a user would write it."""

    def __init__(self, n: int, sparse: bool) -> None:
        super().__init__()
        self.first, self.embedding = nn.Embedding(n, 1, sparse=sparse), nn.Embedding(n, DIM, sparse=sparse)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        e = self.embedding(ids)
        pairs = (e.sum(1).square() - e.square().sum(1)).sum(-1) / 2
        return self.first(ids).sum((1, 2)) + pairs + self.bias


def _plain(placed: Placed, batch: int, way: str) -> Callable[[int], None]:
    model = _PlainFM(sum(placed.data.sizes), way == "sparse").to(placed.device)
    optimisers: list[torch.optim.Optimizer] = [torch.optim.Adam([model.bias], lr=RATE)]
    tables = [model.first.weight, model.embedding.weight]
    optimisers.append(torch.optim.SparseAdam(tables, lr=RATE) if way == "sparse" else torch.optim.Adam(tables, lr=RATE))
    order = placed.order("train", np.random.default_rng(1).permutation(len(placed.data.train)))
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            rows = placed.batch("train", order[done * batch : (done + 1) * batch])
            done = (done + 1) % (len(placed.data.train) // batch)
            loss = F.binary_cross_entropy_with_logits(model(rows.ids), rows.labels)
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimiser in optimisers:
                optimiser.step()

    return run


def _rows(placed: Placed, batch: int) -> Callable[[int], None]:
    ids = placed.batch("train", slice(0, batch)).ids
    found = torch.unique(ids)
    table = nn.Parameter(torch.zeros(sum(placed.data.sizes), DIM + 1, device=placed.device))
    optimiser = RowAdam([table], lr=RATE, weight_decay=1e-3)
    values = torch.ones(len(found), DIM + 1, device=placed.device)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimiser.catch_up(table, ids)
            table.grad = torch.sparse_coo_tensor(
                found[None], values, table.shape, is_coalesced=True, check_invariants=False
            )
            optimiser.step()

    return run

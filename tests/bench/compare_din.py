"""DIN with Dice against PReLU and ReLU on grocery: does a user buy this item next? GAUC, leave-last-out.

Data: Amazon Grocery (ReChorus). Of each user the last purchase is tested, the one before it validated, those between
are trained on; each comes with one item at random that the user never bought (drawn once) and the same history of up
to 20 items. Fields user, item, category; the history is of items. One user is one group of two rows, so that GAUC is
the share of users whose purchase is ranked above the item at random.

Arms differ in nothing but the activation of both perceptrons (80-40 of the local activation unit, whose weights are
not normalised, and the last one), nor in seed by seed start, order and dropout. The rate of learning is chosen per arm
from ``--rates`` by the mean validation GAUC over seeds; training ends when validation AUC has not risen for two epochs
(DIN overfits within a few), and goes back to its best epoch. Test rows are read once per training, after that choice of
epoch. Differences of arms are given seed by seed.

Unlike DIN's published runs: Adam (``RowAdam`` for the table) instead of SGD at 1.0, batch 256 instead of 32, items and
categories of width 32 instead of 64, a user field, negatives that do not change by epoch, categories of past items not
read; unlike the published code, Dice has the moments of the batch.

    python tests/bench/compare_din.py --data-dir DATA --out din-grocery.jsonl
    python tests/bench/compare_din.py --out din-grocery.jsonl --summary

One line of JSON per training is appended to ``--out``; what is there is not trained again.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment

from layersearch.spaces.tasks.ctr.data import CTRData, PartName
from layersearch.spaces.tasks.ctr.learning import Learner
from layersearch.spaces.tasks.ctr.metrics import auc, grouped_auc, log_loss
from layersearch.spaces.tasks.ctr.models.base import ModelSettings
from layersearch.spaces.tasks.ctr.prepared import load_ctr
from layersearch.spaces.tasks.ctr.settings import LearnSettings

ACTIVATIONS = ("dice", "prelu", "relu")
RATES = (3e-4, 1e-3, 3e-3)
DIM, HIDDEN, BATCH, DECAY, DROPOUT, PATIENCE = 32, (80, 40), 256, 0.0, 0.0, 2


@dataclass(frozen=True)
class Row:
    """One training; ``epochs`` is the most that it may take."""

    activation: str
    rate: float
    seed: int
    epochs: int


def plan(activations: list[str], rates: list[float], seeds: int, epochs: int) -> Iterator[Row]:
    """All arms of a seed before the next seed."""
    for seed in range(seeds):
        for rate in rates:
            for activation in activations:
                yield Row(activation, rate, seed, epochs)


def train(row: Row, data: CTRData) -> dict[str, Any]:
    """Figures of one training, at its best epoch by validation AUC."""
    begin = time.process_time()
    sizes = ModelSettings(dim=DIM, hidden=HIDDEN, activation=row.activation, dropout=DROPOUT)
    settings = LearnSettings(
        model="din",
        sizes=sizes,
        gates=(),
        price=0.0,
        decay=DECAY,
        batch=BATCH,
        lr=row.rate,
        epochs=row.epochs,
        patience=PATIENCE,
    )
    learner = Learner(data, settings, row.seed)
    learner.run()
    figures = {
        f"{part}_{name}": value
        for part in ("validation", "test")
        for name, value in judged(learner, part).items()  # type: ignore[arg-type]
    }
    epochs = {"best_epoch": learner.best_epoch, "epochs_run": len(learner.history)}
    return asdict(row) | figures | epochs | {"cpu_s": time.process_time() - begin}


def judged(learner: Learner, part: PartName) -> dict[str, float | None]:
    rows, logits = learner.data.part(part), learner.logits(part)
    assert rows.groups is not None
    return {
        "gauc": grouped_auc(rows.labels, logits, rows.groups),
        "auc": auc(rows.labels, logits),
        "log_loss": log_loss(rows.labels, logits),
    }


def done(out: Path) -> dict[Row, dict[str, Any]]:
    if not out.exists():
        return {}
    found = [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]
    return {Row(r["activation"], r["rate"], r["seed"], r["epochs"]): r for r in found}


def summary(out: Path) -> None:
    """Each arm at its rate, and how far Dice is above the others on the same seeds."""
    chosen: dict[str, dict[int, dict[str, Any]]] = {}
    rows = done(out)
    for activation in ACTIVATIONS:
        by_rate: dict[tuple[float, int], dict[int, dict[str, Any]]] = {}
        for row, found in rows.items():
            if row.activation == activation:
                by_rate.setdefault((row.rate, row.epochs), {})[row.seed] = found
        for (rate, epochs), some in sorted(by_rate.items()):
            print(f"  {activation:6s} rate {rate:g}, at most {epochs} epochs: {_told(some)}")
        if by_rate:
            seeds = set.intersection(*(set(some) for some in by_rate.values()))
            best = max(by_rate, key=lambda key: _mean({s: by_rate[key][s] for s in seeds}, "validation_gauc"))
            chosen[activation] = by_rate[best]
            print(f"  {activation:6s} chosen over the {len(seeds)} seeds that all its rates have: rate {best[0]:g}")
    for other in [name for name in chosen if name != "dice" and "dice" in chosen]:
        shared = sorted(chosen["dice"].keys() & chosen[other].keys())
        gaps = np.array([chosen["dice"][s]["test_gauc"] - chosen[other][s]["test_gauc"] for s in shared])
        print(f"  dice - {other}: test GAUC {gaps.mean():+.4f} ± {_spread(gaps):.4f} over {len(gaps)} seeds")


def _told(seeds: dict[int, dict[str, Any]]) -> str:
    test = np.array([found["test_gauc"] for found in seeds.values()])
    return (
        f"validation GAUC {_mean(seeds, 'validation_gauc'):.4f}, test GAUC {test.mean():.4f} ± {_spread(test):.4f}, "
        f"AUC {_mean(seeds, 'test_auc'):.4f}, log loss {_mean(seeds, 'test_log_loss'):.4f}, best epoch "
        f"{_mean(seeds, 'best_epoch'):.1f}, {_mean(seeds, 'cpu_s'):.0f} core-s, n {len(seeds)}"
    )


def _mean(seeds: dict[int, dict[str, Any]], name: str) -> float:
    return float(np.mean([found[name] for found in seeds.values()]))


def _spread(values: "np.ndarray[Any, Any]") -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--activations", nargs="+", default=list(ACTIVATIONS), choices=ACTIVATIONS)
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    if not given.summary:
        torch.set_num_threads(1)
        print(environment())
        data = load_ctr("grocery", given.data_dir)
        for row in plan(given.activations, given.rates, given.seeds, given.epochs):
            if row in done(given.out):
                continue
            found = train(row, data)
            with given.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
    summary(given.out)


if __name__ == "__main__":
    main()

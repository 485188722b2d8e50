"""OptFS against its controls on Frappe or MovieLens: test AUC of each base model by kept ratio, over seeds.

Per base model and seed: the full model; per ratio and seed the learned selection, thresholded and trained again, and at
the ratio that it kept the most frequent values and random ones. All by the same code and settings; validation rows stop
the training, test rows are read once at its end. Deep models have the sizes and the penalty on embeddings with which
BARS' were tuned; FM's rate was chosen on validation rows of seed 98, as was what follows the learning of gates: values
are reviewed twice (``best_values``). One line of JSON per training is appended to ``--out``; what is there is not
trained again, so the script goes on where it was stopped. ``--summary`` prints the table of what is there.

    python tests/bench/compare_optfs.py --data-dir DATA --out optfs-frappe.jsonl
    python tests/bench/compare_optfs.py --data-dir DATA --out optfs-frappe.jsonl --ratios  # the full models alone
    python tests/bench/compare_optfs.py --out optfs-frappe.jsonl --summary
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layersearch.spaces.tasks.ctr.data import CTRData
from layersearch.spaces.tasks.ctr.learning import Learner
from layersearch.spaces.tasks.ctr.models.base import ModelSettings
from layersearch.spaces.tasks.ctr.prepared import load_ctr
from layersearch.spaces.tasks.ctr.selection import by_frequency, by_random
from layersearch.spaces.tasks.ctr.settings import LearnSettings

PUBLISHED = {"lr": 0.9356, "fm": 0.9671, "dcn": 0.9834, "deepfm": 0.9839, "ipnn": 0.984}
"""AUC on Frappe_x1, BARS."""

DEEP: dict[str, Any] = {
    "hidden": (400, 400, 400),
    "batch_norm": True,
    "dropout": 0.2,
    "dim": 10,
    "std": 1e-4,
    "n_cross": 3,
}
HELD: dict[str, Any] = {"batch": 4096, "lr": 1e-3, "epochs": 50, "penalty": 0.05, "slowing": 0.1}
MODELS: dict[str, dict[str, Any]] = {
    "lr": {"sizes": ModelSettings(dim=1), "batch": 1024, "lr": 5e-3, "epochs": 25},
    "fm": {"sizes": ModelSettings(dim=10), "batch": 1024, "lr": 4e-3, "epochs": 100},
    "dcn": {"sizes": ModelSettings(**DEEP), **HELD},
    "deepfm": {"sizes": ModelSettings(**DEEP), **HELD},
    "ipnn": {"sizes": ModelSettings(**DEEP | {"batch_norm": False, "dropout": 0.3}), **HELD},
}
SHARED: dict[str, Any] = {
    "decay": 0.0,
    "patience": 2,
    "price": 0.0,
    "gate_lr": 0.01,
    "search_epochs": 8,
    "warm_epochs": 1,
    "reviews": 2,
}


@dataclass(frozen=True)
class Row:
    """One training. ``ratio`` is the wanted one; a control has the ratio that the learned selection kept."""

    model: str
    arm: str
    ratio: float
    seed: int

    @property
    def key(self) -> tuple[str, str, float, int]:
        return self.model, self.arm, self.ratio, self.seed


def plan(models: list[str], ratios: list[float], seeds: int) -> Iterator[Row]:
    """Learned selections before the controls that need their ratio."""
    for seed in range(seeds):
        for model in models:
            yield Row(model, "full", 1.0, seed)
            for ratio in ratios:
                for arm in ("optfs", "frequency", "random"):
                    yield Row(model, arm, ratio, seed)


def settings_of(row: Row) -> LearnSettings:
    selects: dict[str, Any] = {"gates": ("value",), "ratio": row.ratio} if row.arm == "optfs" else {"gates": ()}
    return LearnSettings(model=row.model, **MODELS[row.model], **SHARED, **selects)


def train(row: Row, data: CTRData, kept: float) -> dict[str, Any]:
    """Figures of one training; ``kept`` is the ratio of a control."""
    begin = time.process_time()
    keep = None
    if row.arm == "frequency":
        keep = {"value": by_frequency(data, kept)}
    elif row.arm == "random":
        keep = {"value": by_random(data, kept, row.seed)}
    learner = Learner(data, settings_of(row), row.seed, keep)
    learner.run()
    validation, test = learner.score("validation"), learner.score("test")
    selection = learner.gates.selection()
    ratio = float(selection.rows().double().mean()) if learner.gates.gates else 1.0
    return {
        "data": data.name,
        "model": row.model,
        "arm": row.arm,
        "wanted": row.ratio,
        "seed": row.seed,
        "kept": ratio,
        "by_field": _by_field(data, selection.rows().numpy()) if row.arm == "optfs" else {},
        "validation_auc": validation.auc,
        "test_auc": test.auc,
        "test_log_loss": test.log_loss,
        "epochs": len(learner.history),
        "cpu_s": time.process_time() - begin,
    }


def _by_field(data: CTRData, rows: np.ndarray[Any, Any]) -> dict[str, float]:
    """Kept share of the values of each field: the pair item and cost must survive on Frappe."""
    return {
        name: float(rows[low : low + size].mean())
        for name, low, size in zip(data.fields, data.offsets, data.sizes, strict=True)
    }


def done(out: Path) -> dict[tuple[str, str, float, int], dict[str, Any]]:
    if not out.exists():
        return {}
    rows = [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]
    if len({r["data"] for r in rows}) > 1:
        raise SystemExit(f"{out} has rows of more than one data set; give each a file of its own")
    return {(r["model"], r["arm"], r["wanted"], r["seed"]): r for r in rows}


def summary(out: Path) -> None:
    """Mean and deviation over seeds, and how far the learned selection is above each control."""
    rows = list(done(out).values())
    for model in dict.fromkeys(r["model"] for r in rows):
        mine = [r for r in rows if r["model"] == model]
        known = f" (published: {PUBLISHED[model]:.4f})" if mine[0]["data"] == "frappe" else ""
        print(f"{model} on {mine[0]['data']}{known}")
        for arm, wanted in sorted({(r["arm"], r["wanted"]) for r in mine}, key=lambda x: (-x[1], x[0])):
            some = [r for r in mine if (r["arm"], r["wanted"]) == (arm, wanted)]
            auc = np.array([r["test_auc"] for r in some])
            spread = auc.std(ddof=1) if len(auc) > 1 else math.nan
            kept = np.mean([r["kept"] for r in some])
            print(f"  {arm:10s} kept {kept:.3f}  test AUC {auc.mean():.5f} ± {spread:.5f}  n {len(auc)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default="frappe", choices=("frappe", "movielens"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--ratios", nargs="*", type=float, default=[0.9, 0.7, 0.5, 0.3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    if not given.summary:
        data = load_ctr(given.data, given.data_dir)
        for row in plan(given.models, given.ratios, given.seeds):
            there = done(given.out)
            if any(r["data"] != given.data for r in there.values()):
                raise SystemExit(f"{given.out} has rows of another data set; give {given.data} a file of its own")
            if row.key in there:
                continue
            learned = there.get((row.model, "optfs", row.ratio, row.seed))
            found = train(row, data, learned["kept"] if learned else row.ratio)
            with given.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps({k: v for k, v in found.items() if k != "by_field"}), flush=True)
    summary(given.out)


if __name__ == "__main__":
    main()

"""The best KAN that a search finds against MLPs and gradient boosting, on UCI tables with their published splits.

python tests/bench/compare_uci.py RECORD.jsonl --data-dir DATA [--tables yacht,concrete] [--splits 0,1] [--seeds 0,1,2]
    [--evaluations 40] [--objectives rmse,parameters] [--preset smoke] [--runs-dir runs]
python tests/bench/compare_uci.py RECORD.jsonl --summary

Fixed before any run, the same for every table:

- Every choice is made anew for each split, in its training part alone, cut as in a search: a fifth for validation, a
  fifth held out. Test rows are read once per training, when it is over.
- ``kan``: the winner of ``search tune --space kan`` with so many evaluations, of the re-rank of its best 3. By default
  the sampler looks for small networks, too; with ``--objectives rmse`` it looks at the error alone.
- ``mlp``: SiLU, two equal hidden layers, as many parameters as that winner; ``mlp-most``: as many as any candidate may
  have; ``mlp-grid``: the best on the validation part of 4 activations × depths 1 to 3 × the two sizes, seed 0.
- ``boosting``: scikit-learn's GradientBoosting (depth 2, 3, 5) and HistGradientBoosting (7, 15, 31 leaves), each with
  rates .03 and .1 and 50, 100, 200, 400 or 800 trees: the best on the validation part, seed 0.
- Then each is trained on the whole training part of the split (but for two rows, which the task keeps for validation
  and hold-out), networks by the recipe of the preset for as many steps as its re-rank, once per seed, and tested.

Figures are root mean square errors on the test part in units of the target: per split the mean over seeds, then mean ±
standard deviation over splits. Training parts of splits overlap, so that deviation is one of data, not a standard
error; arms are compared split by split. Every choice and training is a line of the record; what is there is not made
again, and a search that was stopped goes on.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

import layersearch
from layersearch.search.cli import main as search
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.formula import formula
from layersearch.spaces.kan.genome import KANGenome, from_json, make, to_json
from layersearch.spaces.kan.network import build, count_parameters
from layersearch.spaces.kan.published import mlp_of
from layersearch.spaces.kan.settings import KANSettings, effective, parse
from layersearch.spaces.kan.space import KANSpace
from layersearch.spaces.kan.staged import init_generator
from layersearch.spaces.tasks.regression import RegressionTask

__all__: list[str] = []

TABLES = ("concrete", "energy", "yacht", "power_plant", "wine_quality_red")
ARMS = ("kan", "mlp", "mlp-most", "mlp-grid", "boosting")
TREES = (50, 100, 200, 400, 800)
_ACTIVATIONS = ("gelu", "relu", "silu", "tanh")
_LEAST = 1e-9
"""A fraction of which one row is left."""
_Row = dict[str, Any]


class Record:
    """Lines of JSON by table, split, arm and seed; a choice has no seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[_Row] = [json.loads(line) for line in lines if line.endswith("}")]

    def once(self, place: _Row, work: Callable[[], _Row]) -> _Row:
        """The line of a place, which ``work`` makes if there is none."""
        for row in self.rows:
            if all(row[name] == value for name, value in place.items()):
                return row
        begin = time.process_time()
        row = {**place, **work(), "core_s": time.process_time() - begin, "measured": common.environment("scikit-learn")}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print({name: value for name, value in row.items() if name not in ("chosen", "measured")}, flush=True)
        return row


class Split:
    """One published split: its settings, with the parts of a search and with all of them to train on."""

    def __init__(self, table: str, split: int, preset: str, data_dir: str) -> None:
        self.table, self.split, self.preset, self.data_dir = table, split, preset, data_dir
        self.settings: KANSettings = parse(effective(None, f"uci:{table}", data_dir, preset, {"task.split": split}))
        arrays, task = KANSpace(self.settings).load_data(), self.settings.task
        self.parts = RegressionTask(arrays, task)
        whole = task.replace(validation_fraction=_LEAST, holdout_fraction=_LEAST)
        self.whole = RegressionTask(arrays, whole)

    @property
    def inputs(self) -> int:
        return self.parts.in_features

    def trained(self, task: RegressionTask, genome: KANGenome, seed: int, part: str) -> float | None:
        """Error on a part, in units of the target, after a training of as many steps as the re-rank has."""
        network = build(genome, self.inputs, 1, generator=init_generator(seed), dtype=task.dtype)
        steps = task.settings.rerank_steps
        result = task.train(network, until_step=steps, total_steps=steps, seed=seed)
        return task.evaluate(network, part).rmse if result.status == "ok" else None  # type: ignore[arg-type]


def searched(own: Split, evaluations: int, objectives: str, runs_dir: Path) -> _Row:
    """The winner of a search, which is begun, or goes on, or is over."""
    name = f"uci-{own.table}-{own.split}-{own.preset}-{evaluations}-{objectives.replace(',', '-')}"
    code = 0
    if not (runs_dir / name).exists():
        code = search(
            ["tune", "--space", "kan", "--data", f"uci:{own.table}", "--data-dir", own.data_dir, "--run", name,
             "--runs-dir", str(runs_dir), "--preset", own.preset, "--evaluations", str(evaluations),
             "--rerank-top", "3", "--workers", "1", "--device", "cpu", "--seed", str(own.split),
             "--set", f"task.split={own.split}", "--set", f"funnel.objectives=[{objectives}]"]
        )  # fmt: skip
    elif not _is_over(runs_dir / name):
        code = search(["resume", name, "--runs-dir", str(runs_dir)])
    if code != 0:
        raise SystemExit(f"{name}: the search ended with exit code {code}; see what it said")
    genome = layersearch.load(name, runs_dir).best().genome
    return {"chosen": genome, "design": formula(from_json(genome))}


def _is_over(run_dir: Path) -> bool:
    with StoreReader(run_dir) as reader:
        return bool(reader.meta("phase") == "done")


def best_mlp(own: Split, sizes: tuple[int, int]) -> _Row:
    """The network of a grid with the smallest error on the validation part."""
    grid = [
        make(MLP, base=activation, hidden=mlp_of(size, own.inputs, 1, depth).hidden)
        for size in sizes
        for depth in (1, 2, 3)
        for activation in _ACTIVATIONS
    ]
    errors = {
        genome: error for genome in grid if (error := own.trained(own.parts, genome, 0, "validation")) is not None
    }
    best = min(errors, key=errors.__getitem__)
    return {"chosen": to_json(best), "design": formula(best), "tried": len(grid)}


def boosters(seed: int) -> Iterator[tuple[_Row, Any]]:
    """Settings and models of the grid, with the most trees."""
    from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor

    for rate in (0.03, 0.1):
        for depth in (2, 3, 5):
            about = {"kind": "exact", "learning_rate": rate, "max_depth": depth}
            yield (
                about,
                GradientBoostingRegressor(
                    learning_rate=rate, max_depth=depth, n_estimators=TREES[-1], random_state=seed
                ),
            )
        for leaves in (7, 15, 31):
            about = {"kind": "hist", "learning_rate": rate, "max_leaf_nodes": leaves}
            yield (
                about,
                HistGradientBoostingRegressor(
                    learning_rate=rate,
                    max_leaf_nodes=leaves,
                    max_iter=TREES[-1],
                    early_stopping=False,
                    random_state=seed,
                ),
            )


def boosted(task: RegressionTask, model: Any, part: str) -> dict[int, float]:
    """Errors on a part by number of trees, in units of the target."""
    (x, y), (at, target) = (_points(task, name) for name in ("train", part))
    model.fit(x, y)
    staged = enumerate(model.staged_predict(at), 1)
    return {n: float(np.sqrt(np.mean((found - target) ** 2))) for n, found in staged if n in TREES}


def _points(task: RegressionTask, part: Any) -> tuple[Any, Any]:
    x, y = (value.double().numpy() for value in task.points(part))
    return x, y[:, 0] * task.target_std + task.target_mean


def best_booster(own: Split) -> _Row:
    found = [
        (error, n, about)
        for about, model in boosters(0)
        for n, error in boosted(own.parts, model, "validation").items()
    ]
    _, trees, about = min(found, key=lambda row: row[0])
    chosen = {**about, "trees": trees}
    return {"chosen": chosen, "design": ", ".join(f"{name} {value}" for name, value in chosen.items())}


def tested_booster(own: Split, chosen: JsonObject, seed: int) -> float:
    """On the test part, of the chosen settings."""
    about = {name: value for name, value in chosen.items() if name != "trees"}
    model = next(model for other, model in boosters(seed) if other == about)
    return boosted(own.whole, model, "test")[chosen["trees"]]


def fill(record: Record, own: Split, seeds: list[int], evaluations: int, objectives: str, runs_dir: Path) -> None:
    """All lines of a split."""
    where = {"table": own.table, "split": own.split, "preset": own.preset}
    where |= {"evaluations": evaluations, "objectives": objectives}

    def choice(arm: str, work: Callable[[], _Row]) -> Any:
        return record.once({**where, "arm": arm, "seed": None}, work)["chosen"]

    most = own.settings.network.most_parameters
    winner = from_json(choice("kan", lambda: searched(own, evaluations, objectives, runs_dir)))
    size = count_parameters(winner, own.inputs, 1)
    designs = {"kan": winner, "mlp": mlp_of(size, own.inputs, 1), "mlp-most": mlp_of(most, own.inputs, 1)}
    designs["mlp-grid"] = from_json(choice("mlp-grid", lambda: best_mlp(own, (size, most))))
    trees = choice("boosting", lambda: best_booster(own))
    for seed in seeds:
        for arm, genome in designs.items():
            record.once(
                {**where, "arm": arm, "seed": seed},
                lambda g=genome, s=seed: {  # type: ignore[misc]
                    "rmse": own.trained(own.whole, g, s, "test"), "parameters": count_parameters(g, own.inputs, 1)
                },
            )  # fmt: skip
        record.once(
            {**where, "arm": "boosting", "seed": seed},
            lambda s=seed: {"rmse": tested_booster(own, trees, s), "parameters": None},  # type: ignore[misc]
        )


def summary(rows: list[_Row]) -> None:
    """One table per preset and budget, and ``kan`` against each other arm split by split."""
    tested = [row for row in rows if row["seed"] is not None]
    searches = ("preset", "evaluations", "objectives")
    for about in dict.fromkeys(tuple(row[name] for name in searches) for row in tested):
        mine = [row for row in tested if tuple(row[name] for name in searches) == about]
        shown: dict[str, dict[str, object]] = {}
        for table in dict.fromkeys(row["table"] for row in mine):
            means = {arm: by_split([row for row in mine if (row["table"], row["arm"]) == (table, arm)]) for arm in ARMS}
            n_rows = sum(row["table"] == table for row in mine)
            shown[f"{table}, {len(means['kan'])} splits, {n_rows} trainings"] = {
                arm: spread(list(means[arm].values())) for arm in ARMS
            }
            for arm in ARMS[1:]:
                both = sorted(set(means["kan"]) & set(means[arm]))
                gaps = [means["kan"][split] - means[arm][split] for split in both]
                wins = sum(gap < 0 for gap in gaps)
                print(f"  {table}: kan - {arm} {spread(gaps)}, smaller on {wins} of {len(gaps)} splits")
        common.table("test rmse in units of the target; preset {}, {} evaluations, by {}".format(*about), shown)
    for row in rows:
        if row["seed"] is None:
            print(f"  {row['table']} {row['split']} {row['arm']}: {row['design']} ({row['core_s']:.0f} core-s)")


def by_split(rows: list[_Row]) -> dict[int, float]:
    """Mean over seeds; a training without a number leaves its split out, and is named."""
    lost = [row for row in rows if row["rmse"] is None]
    for row in lost:
        print(f"  {row['table']} {row['split']} {row['arm']}, seed {row['seed']}: ended without a number")
    splits = sorted({row["split"] for row in rows} - {row["split"] for row in lost})
    return {split: statistics.fmean(row["rmse"] for row in rows if row["split"] == split) for split in splits}


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--splits", default="0,1,2,3,4")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--objectives", default="rmse,parameters")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    record = Record(given.record)
    if not given.summary:
        if given.data_dir is None:
            parser.error("--data-dir must be given, the folder that has uci/; or --summary")
        torch.set_num_threads(1)
        seeds = [int(seed) for seed in given.seeds.split(",")]
        for split in map(int, given.splits.split(",")):
            for table in given.tables.split(","):
                own = Split(table, split, given.preset, given.data_dir)
                fill(record, own, seeds, given.evaluations, given.objectives, given.runs_dir)
    summary(record.rows)


if __name__ == "__main__":
    main()

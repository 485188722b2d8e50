"""Does an early measurement say who will be best? Random candidates of a space of networks, measured on their way.

python tests/bench/rank_rungs.py SPACE --data NAME [--data-dir DIR --preset NAME --candidates N --rungs 40,80,133]
python tests/bench/rank_rungs.py optfs --rungs 1,2,3,4,5,6   # on a planted task of 6,000 rows, of seconds

Prints, for each rung, the rank correlation of the first objective there with that at the end of the training, and the
core-seconds of a candidate up to there. Candidates are drawn from the whole space: those of a search that has got
somewhere are more alike, and harder to tell apart.
"""

import argparse
import json
import random

import common
from scipy.stats import spearmanr

from layersearch.search.executors.base import run_timed, settle_torch
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import Arrays, Job, Space
from layersearch.spaces.tasks.ctr.arrays import to_arrays
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted

__all__: list[str] = []

PLANTED = PlantedSettings(mains=2, couples=1, noise=3, values=24, every=3, exponent=0.3, rows=(6000, 3000, 800))
MOST_DRAWS = 100
"""Genomes drawn for each candidate that is asked for."""
OF_PLANTED = {
    "task.batch": 400, "search.models": ["fm", "lr", "deepfm"], "search.dims": [2, 4], "search.lr": [0.003, 0.05],
}  # fmt: skip


def measured(space: Space, data: Arrays, n: int) -> list[dict[str, tuple[float | None, float]]]:
    """Of each candidate that passes all stages: the first objective, and CPU time since the start, by stage."""
    settle_torch()
    evaluator, name = space.evaluator(data, "cpu"), space.objectives[0].name
    rng, rows, number = random.Random(0), [], 0
    for _ in range(MOST_DRAWS * n):
        genome = space.sample(rng)
        if space.outline(genome).reason is not None or space.probe(genome).reason is not None:
            continue
        number += 1
        row: dict[str, tuple[float | None, float]] = {}
        checkpoint, cpu_s = None, 0.0
        for stage in space.stages:
            job = Job(number, stage.id, space.to_json(genome), number, checkpoint=checkpoint)
            outcome = run_timed(evaluator, job, None)[0]
            if outcome.state != "passed":
                break
            checkpoint, cpu_s = outcome.checkpoint, cpu_s + outcome.cpu_s
            row[stage.id] = outcome.fitness.get(name), cpu_s
        else:
            rows.append(row)
            if len(rows) == n:
                return rows
    raise SystemExit(
        f"{n} candidates must pass all stages, but of {MOST_DRAWS * n} drawn {len(rows)} did; ask for fewer"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", choices=("kan", "skan", "optfs"))  # a candidate of these has one training
    parser.add_argument("--data")
    parser.add_argument("--data-dir")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--rungs", default="40,80,133,200,300")
    arguments = parser.parse_args()
    entry = SPACES[arguments.space]
    rungs = {"fidelity.rungs": json.loads(f"[{arguments.rungs}]")}
    data = arguments.data or entry.data
    is_planted = data == "planted"
    changes = rungs | (OF_PLANTED if is_planted else {})
    settings = entry.settings_of(None, data, arguments.data_dir, arguments.preset, changes, None, "torch")
    space: Space = entry.resolve(entry.entry)(settings)
    arrays = to_arrays(planted(0, PLANTED).with_holdout()) if is_planted else space.load_data()
    rows = measured(space, arrays, arguments.candidates)
    end = space.stages[-1].id
    final = [row[end][0] for row in rows]
    table = {}
    for stage in space.stages:
        if stage.rung is not None or stage.id == end:
            values = [row[stage.id][0] for row in rows]
            cpu_s = sum(row[stage.id][1] for row in rows) / len(rows)
            table[stage.id] = {"Spearman": float(spearmanr(values, final).statistic), "core-s": cpu_s}
    print(common.environment())
    common.table(f"{arguments.space} on {data}, {len(rows)} candidates", table)


if __name__ == "__main__":
    main()

"""What pruning an S-ConvKAN costs: validation accuracy before it, after it, and after it with the norms' old moments.

python tests/bench/compare_pruning.py [SEEDS]

Digits, preset smoke, the designs of the skan space; a training is stopped after 90 of 300 steps, where it prunes.
"""

import copy
import statistics
import sys
from typing import Any
from unittest.mock import patch

import common

from layersearch.search.executors.base import settle_torch
from layersearch.spaces.skan.images import network, training
from layersearch.spaces.skan.images.evaluate import ImageSKANEvaluator
from layersearch.spaces.skan.images.space import ImageSKANSpace
from layersearch.spaces.skan.settings import effective
from layersearch.spaces.skan.space import from_settings

__all__: list[str] = []

STEPS, HORIZON = 90, 300
DESIGNS = ("sconvkan", "sconvkan-diverse")


def accuracies(evaluator: ImageSKANEvaluator, genome: Any, seed: int) -> dict[str, float]:
    task, found = evaluator.task, dict[str, float]()

    def accuracy(name: str, model: Any) -> None:
        found[name] = task.evaluate(model, "validation").accuracy or 0.0

    def watched(model: Any, *how: Any) -> Any:
        accuracy("before", model)
        with patch.object(network, "_settle"):
            accuracy("old moments", network.prune(copy.deepcopy(model), *how))
        pruned = network.prune(model, *how)
        accuracy("pruned", pruned)
        return pruned

    with patch.object(training, "prune", watched):
        training.train(task, genome, until_step=STEPS, total_steps=HORIZON, seed=seed)
    return found


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    settle_torch()
    space = from_settings(effective(None, "digits", None, "smoke"))
    assert isinstance(space, ImageSKANSpace)
    evaluator = space.evaluator(space.load_data(), "cpu")
    assert isinstance(evaluator, ImageSKANEvaluator)
    print(common.environment())
    table = {}
    for name in DESIGNS:
        rows = [accuracies(evaluator, space.seeds()[name], seed) for seed in seeds]
        table[name] = {column: statistics.fmean(row[column] for row in rows) for column in rows[0]}
    common.table(f"validation accuracy, mean of {len(seeds)} seeds", table)


if __name__ == "__main__":
    main()

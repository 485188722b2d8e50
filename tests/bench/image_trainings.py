"""Networks of images trained and tested as by the end of a search, for the comparisons that do so."""

import json
import statistics
from pathlib import Path
from typing import Any

from layersearch.primitives.seeds import Seeds
from layersearch.search.executors.base import run_timed
from layersearch.spaces.contracts import Evaluator, Job, JsonObject

__all__ = ["rows_of", "spread", "trained_and_tested"]


def trained_and_tested(
    evaluator: Evaluator, genome: JsonObject, seed: int, name: str
) -> tuple[JsonObject, bytes | None]:
    """The re-rank's training with a seed of the comparison ``name``, and its one look at the test images.

    Returns: state, core-seconds and accuracies of a row; and the checkpoint, if the training has one.
    """
    job = Job(0, "rerank:0", genome, Seeds(seed).derive(name))
    trained, _ = run_timed(evaluator, job, None)
    row: JsonObject = {"state": trained.state, "cpu_s": trained.cpu_s}
    if trained.checkpoint is not None:
        tested = evaluator.run(Job(0, "test:0", job.genome, job.seed, checkpoint=trained.checkpoint))
        row |= {"holdout": trained.fitness["accuracy"], "test": tested.fitness["accuracy"]}
        if trained.selection is not None:
            row["selection"] = trained.selection
    return row, trained.checkpoint


def rows_of(results: Path, settings: JsonObject) -> list[JsonObject]:
    """The rows of a file of results that are of these settings."""
    kept: list[dict[str, Any]] = (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )
    return [row for row in kept if row["settings"] == settings]


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):+.4f} ± {deviation:.4f}"

"""Self-test of the rejecting stages: layers known to work must pass all of them, layers known not to must not.

Limits, steps and learning rates of a preset are only trusted on a data set once this table has been made for it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from layersearch.primitives.graph import Graph
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Job, JsonObject, Outcome
from layersearch.spaces.evonorm.evaluate import EvonormEvaluator
from layersearch.spaces.evonorm.published import PUBLISHED, graph_of, pad
from layersearch.spaces.evonorm.space import EvonormSpace, from_settings
from layersearch.spaces.fidelity import place_of

__all__ = ["MUST_FAIL", "MUST_PASS", "RECORD", "CalibrationRow", "calibrate", "fingerprint", "recorded", "verdict"]

RECORD = Path(__file__).with_name("calibration.json")
"""The last committed tables, by preset and data set; what ``search doctor`` prints."""

MUST_PASS = {name: PUBLISHED[name] for name in ("bn-relu", "gn-relu", "bn-silu", "evonorm-b0", "evonorm-s0")}
MUST_FAIL = {"identity": graph_of(("neg", 0), ("neg", 4)), "relu": graph_of(("max", 0, 1))}


@dataclass(frozen=True)
class CalibrationRow:
    """Outcomes of one layer at one rejecting stage over the seeds. ``worst`` is the value nearest the limit."""

    layer: str
    stage: str
    passed: int
    seeds: int
    worst: float | None
    limit: float | None
    reason: str = ""


def calibrate(settings: JsonObject, seeds: int, progress: Callable[[str], None]) -> list[JsonObject]:
    """Runs every rejecting stage for every layer of the self-test.

    Args:
        settings: of a run (``settings.effective``).
        seeds: trainings per layer and stage.
        progress: told one line per layer.
    Returns: rows of ``CalibrationRow`` as plain data.
    """
    space = from_settings(settings)
    evaluator = EvonormEvaluator(space.settings, space.load_data(), "cpu")
    stages = [s.id for s in space.stages if s.name != "fitness"]
    rows: list[JsonObject] = []
    for name, graph in {**MUST_PASS, **MUST_FAIL}.items():
        genome = space.to_json(pad(Graph(graph.nodes, space.settings.numerics), space.settings.graph.nodes))
        for stage in stages:
            rows.append(asdict(_row(space, evaluator, name, genome, stage, seeds)))
        passed = all(r["passed"] == seeds for r in rows if r["layer"] == name)
        progress(f"{name}: {'passes every stage' if passed else 'fails a stage'}")
    return rows


def fingerprint(settings: JsonObject) -> str:
    """Equal for settings whose rejecting stages are the same: a recorded table speaks for these alone."""
    judged = {
        k: v
        for part in ("funnel", "task")
        for k, v in settings[part].items()
        if not k.startswith("rerank") and k not in ("cuda_graphs", "objectives")
    }
    return hashlib.sha256(json.dumps(judged, sort_keys=True).encode()).hexdigest()[:16]


def verdict(rows: list[JsonObject]) -> list[str]:
    """What is wrong with a table, one sentence each; empty if the limits can be trusted."""
    wrong = []
    for row in rows:
        if row["layer"] in MUST_PASS and row["passed"] < row["seeds"]:
            wrong.append(
                f"{row['layer']} must pass {row['stage']}, failed {row['seeds'] - row['passed']} of {row['seeds']}"
            )
    for layer in MUST_FAIL:
        mine = [row for row in rows if row["layer"] == layer]
        seeds = max((row["seeds"] for row in mine), default=0)
        if not any(row["passed"] == 0 for row in mine):
            wrong.append(f"{layer} must fail some stage with all {seeds} seeds, passed each at least once")
    return wrong


def recorded() -> list[JsonObject]:
    """The committed tables: preset, data, series, date, versions, settings (a fingerprint) and rows of each."""
    if not RECORD.exists():
        return []
    tables: list[JsonObject] = json.loads(RECORD.read_text())
    return tables


def _row(
    space: EvonormSpace, evaluator: EvonormEvaluator, name: str, genome: JsonObject, stage: str, seeds: int
) -> CalibrationRow:
    outcomes: list[Outcome] = []
    for k in range(seeds):
        seed = Seeds(k).derive("calibration", stage)
        outcomes.append(evaluator.run(Job(candidate=k, stage=stage, genome=genome, seed=seed)))
    funnel, chance = space.settings.funnel, evaluator.chance
    kind = place_of(stage).name
    limit = {"stability": funnel.stability_limit, "quality": funnel.quality_chance * chance}.get(kind)
    measured = [m for o in outcomes if (m := _measured(o)) is not None]
    worst = None if not measured else max(measured) if kind == "stability" else min(measured)
    reasons = sorted({o.reason for o in outcomes if o.state != "passed"})
    return CalibrationRow(
        name, stage, sum(o.state == "passed" for o in outcomes), seeds, worst, limit, "; ".join(reasons)
    )


def _measured(outcome: Outcome) -> float | None:
    """What was held against a limit; a step at which something was not finite is not."""
    return next(iter(outcome.metrics.values()), None if outcome.limit is None else outcome.measured)

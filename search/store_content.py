"""The content of a store in a form that can be compared: two runs are equal when it is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from layersearch.search.candidate import Candidate, StageResult
from layersearch.search.schedulers.base import rung_ends
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject, Stage

__all__ = ["OF_OUTCOMES", "comparable", "content"]

_IDENTITY = (
    "driver", "driver_settings", "scheduler", "scheduler_settings", "population", "seed", "deterministic", "lookahead",
    "evaluations",
)  # fmt: skip
_OF_ARRIVAL = ("seen", "told")
OF_OUTCOMES = ("state", "reason", "measured", "limit", "metrics", "fitness", "selection")
"""What is equal of the outcomes of equal runs."""


def content(reader: StoreReader) -> JsonObject:
    """Events, genomes, outcomes and counts as plain data, in which equal numbers (NaN, too) compare equal.

    Left out is what may differ between equal runs: durations, attempts, checkpoints and, in a deterministic run, the
    order of arrival and whatever lies after the last counted turn. A re-rank or test belongs to it only if it is one of
    the present selection: an extended run may have measured others earlier.
    """
    settings = reader.meta("run", {})
    left_out = _OF_ARRIVAL if settings.get("deterministic") else ()
    end_slot = reader.meta("end_slot")
    again, chosen = reader.meta("rerank", []), reader.meta("winner")
    rerank = {stage.id for stage in reader.stages("rerank_stages")}
    test = {stage.id for stage in reader.stages("test_stages")}
    promotions = reader.promotions()
    n_promoted = Counter(promotion.candidate for _, promotion in promotions)
    after_rungs = _after_rungs(reader.stages()) if reader.meta("end_turn") is not None else []

    def belongs(candidate: Candidate, result: StageResult) -> bool:
        if candidate.origin == "baseline":
            return True
        waits = candidate.state == "stopped" and candidate.told is None
        if waits and after_rungs and result.stage in after_rungs[n_promoted[candidate.number]]:
            return False
        if result.stage in test:
            return bool(candidate.number == chosen)
        return result.stage not in rerank or candidate.number in again

    rows: list[JsonObject] = []
    for candidate in (*reader.baselines(), *reader.candidates()):
        if end_slot is not None and candidate.slot is not None and candidate.slot > end_slot:
            continue
        row = {name: value for name, value in asdict(candidate).items() if name not in left_out}
        results = sorted(reader.results(candidate.number), key=lambda result: result.stage)
        row["outcomes"] = {
            result.stage: {name: comparable(getattr(result.outcome, name)) for name in OF_OUTCOMES}
            for result in results
            if belongs(candidate, result)
        }
        rows.append(row)
    return {
        "run": {name: settings.get(name) for name in _IDENTITY},
        "space": reader.meta("space"),
        "candidates": rows,
        "promotions": [[turn, promotion.candidate, promotion.rung] for turn, promotion in promotions],
        "counts": reader.counts().to_json(),
        "rerank": again,
        "winner": chosen,
    }


def _after_rungs(stages: Sequence[Stage]) -> list[set[str]]:
    """Per rung, the stages that come after it."""
    ends = rung_ends(stages)
    return [{later.id for later in stages[i + 1 :]} for i, stage in enumerate(stages) if stage.id in ends]


def comparable(value: Any) -> Any:
    """Plain data in which equal numbers, NaN too, compare equal."""
    if isinstance(value, dict):
        return {name: comparable(part) for name, part in value.items()}
    return "nan" if isinstance(value, float) and value != value else value

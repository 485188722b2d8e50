"""What a scheduler spared a run: training steps that candidates did not get, and what they would have cost."""

import math
from collections import Counter
from collections.abc import Sequence

from layersearch.search.schedulers.base import Promotion, rung_ends
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject, Stage

__all__ = ["saved"]


def saved(reader: StoreReader) -> JsonObject | None:
    """Compute that the scheduler spared against ``straight``, and who reached and left each rung.

    Every candidate that waits at a rung, also when the run ends, or was stopped by the scheduler is held against a
    training to its end; those that were under way when the run ended are not, since ``straight`` drops them, too.
    ``core_minutes`` is an estimate: each stage not run counts the mean CPU time that it took where it was passed, times
    the share that passed all stages before it of those that were left - ``straight``, too, would have rejected some on
    the way. Stages that nobody has run yet count nothing.

    Returns: ``None`` for ``straight``, else ``{candidates, steps, steps_trained, core_minutes, core_minutes_used,
        rungs: [{rung, reached, promoted}]}``; no number of steps where trainings have none that is known before.
    """
    settings = reader.meta("run", {})
    if settings.get("scheduler", "straight") == "straight":
        return None
    stages, ends = reader.stages(), rung_ends(reader.stages())
    counted = any(stage.steps for stage in stages)
    costs = reader.stage_costs()
    passed = reader.passed_stages()
    promotions = {promotion for _, promotion in reader.promotions()}
    n_reached, n_promoted = Counter[int](), Counter(promotion.rung for promotion in promotions)
    steps_trained = steps_saved = n_saved = 0
    seconds: list[float] = []
    for number, state, reason, names in passed:
        rungs = [rung for stage, rung in ends.items() if stage in names]
        n_reached.update(rungs)
        steps_trained += sum(stage.steps for stage in stages if stage.id in names)
        last = [stage.id for stage in stages if stage.id in names][-1]
        waits = last in ends and Promotion(number, ends[last]) not in promotions
        if state == "paused" or (state == "stopped" and (reason or waits)):
            left = [stage for stage in stages if stage.id not in names]
            n_saved += 1
            steps_saved += sum(stage.steps for stage in left)
            seconds.append(_expected_s(left, costs))
    return {
        "candidates": n_saved,
        "steps": steps_saved if counted else None,
        "steps_trained": steps_trained if counted else None,
        "core_minutes": math.fsum(seconds) / 60,
        "core_minutes_used": reader.search_core_s() / 60,
        "rungs": [
            {"rung": rung, "reached": n_reached[rung], "promoted": n_promoted[rung]} for rung in sorted(ends.values())
        ],
    }


def _expected_s(stages: Sequence[Stage], costs: dict[str, tuple[float, float]]) -> float:
    total, alive = 0.0, 1.0
    for stage in stages:
        mean_s, share_passed = costs.get(stage.id, (0.0, 1.0))
        total += alive * mean_s
        alive *= share_passed
    return total

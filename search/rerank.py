"""Which candidates are best: the order after the search, and the winner after the re-rank."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from layersearch.search.candidate import StageResult
from layersearch.spaces.contracts import Objective

__all__ = ["mean_value", "pareto_front", "ranked", "rerank_value", "spread", "winner"]


def mean_value(fitness: Mapping[str, float], objectives: Sequence[Objective]) -> float:
    """Mean over the objectives that have a weight, by these, of ``sign * value``: larger is better."""
    weighed = [o for o in objectives if o.weight]
    return math.fsum(o.weight * o.sign * fitness[o.name] for o in weighed) / math.fsum(o.weight for o in weighed)


def ranked(fitness: Mapping[int, Mapping[str, float]], objectives: Sequence[Objective]) -> list[int]:
    """All numbers in the order of the search, best mean first.

    Of equal means the lexicographically larger goes first, so a dominated one never does.
    """

    def order(number: int) -> tuple[float, tuple[float, ...], int]:
        values = fitness[number]
        return -mean_value(values, objectives), tuple(-o.sign * values[o.name] for o in objectives), number

    return sorted(fitness, key=order)


def pareto_front(fitness: Mapping[int, Mapping[str, float]], objectives: Sequence[Objective]) -> list[int]:
    """Numbers of the candidates that no other dominates, best mean first; of equal ones all are in it."""
    front: list[int] = []
    values: list[tuple[float, ...]] = []
    for number in ranked(fitness, objectives):
        mine = tuple(o.sign * fitness[number][o.name] for o in objectives)
        if not any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in values):
            front.append(number)
            values.append(mine)
    return front


def rerank_value(
    results: Iterable[StageResult], stages: Sequence[str], objectives: Sequence[Objective]
) -> float | None:
    """``mean_value`` of all numbers measured in ``stages``; ``None`` unless every stage was passed."""
    of = {o.name: o for o in objectives}
    passed = {r.stage: r.outcome.fitness for r in results if r.stage in stages and r.outcome.state == "passed"}
    values = [(of[name], value) for stage in stages if stage in passed for name, value in passed[stage].items()]
    total = math.fsum(o.weight for o, _ in values)
    if not total or len(passed) < len(stages):
        return None
    return math.fsum(o.weight * o.sign * value for o, value in values) / total


def winner(order: Sequence[int], values: Mapping[int, float | None]) -> int | None:
    """The best of the re-rank; without one (no stages, or none passed), the best of the search."""
    measured = [(value, -i, number) for i, number in enumerate(order) if (value := values.get(number)) is not None]
    if measured:
        return max(measured)[2]
    return order[0] if order else None


def spread(
    results: Iterable[StageResult], stages: Sequence[str], of: Literal["fitness", "metrics"] = "fitness"
) -> dict[str, dict[str, float]]:
    """Per objective, or metric, ``{"mean", "std", "n"}`` over the passed ``stages`` (std with n - 1; 0 for one)."""
    values: dict[str, list[float]] = {}
    for result in results:
        if result.stage in stages and result.outcome.state == "passed":
            found = result.outcome.fitness if of == "fitness" else result.outcome.metrics
            for name, value in found.items():
                values.setdefault(name, []).append(value)
    table = {}
    for name, numbers in values.items():
        mean = math.fsum(numbers) / len(numbers)
        variance = math.fsum((x - mean) ** 2 for x in numbers) / max(1, len(numbers) - 1)
        table[name] = {"mean": mean, "std": math.sqrt(variance), "n": len(numbers)}
    return table

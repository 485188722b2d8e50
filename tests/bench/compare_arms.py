"""Evolution against random search: one row per arm over finished runs, with the spread over search seeds.

python tests/bench/compare_arms.py RUN_DIR…
"""

import itertools
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

import common

from layersearch.search.rerank import mean_value, spread
from layersearch.search.store_reader import StoreReader

__all__: list[str] = []

ENOUGH = 60
"""Evaluated candidates that an arm of the CIFAR-10 comparison must have."""

FEW = 20


def facts(run_dir: Path) -> tuple[str, dict[str, float]]:
    """Driver of a run, and its numbers."""
    with StoreReader(run_dir) as reader:
        if reader.meta("phase") != "done":
            raise SystemExit(f"{run_dir}: a run must be finished to be compared; resume it first")
        objectives = reader.objectives()
        own = {n: f for n, f in reader.evaluated().items() if reader.candidate(n).origin != "seed"}
        counts = reader.counts().to_json()
        numbers: dict[str, float] = {
            "core-minutes of search": reader.search_core_s() / 60,
            "proposals": counts["asked"],
            "evaluated": counts["evaluated"],
            "best of the search, seeds left out": max((mean_value(f, objectives) for f in own.values()), default=0.0),
        }
        numbers |= course(reader, own)
        winner = reader.meta("winner")
        numbers |= scores(reader, winner, "winner")
        numbers["winner is a seed layer"] = float(reader.candidate(winner).origin == "seed")
        for baseline in reader.baselines():
            numbers |= scores(reader, baseline.number, str(baseline.name))
        run = reader.meta("run")
        sampler = run["driver_settings"].get("sampler")
        return f"{run['driver']}" + (f":{sampler}" if sampler else ""), numbers


def course(reader: StoreReader, own: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """How far the search was after each third of its core-time, and where that went."""
    stages, objectives = {stage.id for stage in reader.stages()}, reader.objectives()
    results = [
        (candidate, result)
        for candidate in reader.candidates()
        for result in reader.results(candidate.number)
        if result.stage in stages
    ]
    results.sort(key=lambda pair: pair[1].seq)
    spent = list(itertools.accumulate(result.outcome.cpu_s / 60 for _, result in results))
    ends = {candidate.number: at for (candidate, _), at in zip(results, spent, strict=True)}
    found = {
        f"best of the search, after {third}/3": max(
            (mean_value(f, objectives) for n, f in own.items() if ends[n] <= spent[-1] * third / 3 + 1e-9), default=0.0
        )
        for third in (1, 2)
    }
    done = sorted(reader.evaluated(), key=ends.__getitem__)
    if len(done) >= ENOUGH:
        found[f"core-minutes to the {ENOUGH}th evaluated"] = ends[done[ENOUGH - 1]]
    cost: dict[int, float] = {}
    for candidate, result in results:
        cost[candidate.number] = cost.get(candidate.number, 0.0) + result.outcome.cpu_s
    rejected = [c.number for c in reader.candidates() if c.state == "rejected"]
    found["core-minutes on rejected candidates"] = sum(cost[number] for number in rejected) / 60
    for name, some in (("first", done[:FEW]), ("last", done[-FEW:])) if done else ():
        found[f"core-s of the {name} {FEW} evaluated"] = statistics.fmean(cost[number] for number in some)
    found["stages run again after a lost worker"] = float(sum(result.attempts > 1 for _, result in results))
    return found


def scores(reader: StoreReader, number: int, name: str) -> dict[str, float]:
    """Mean over networks and trainings of the re-rank and of the test."""
    return {
        f"{name}, {kind}": statistics.fmean(row["mean"] for row in table.values())
        for kind, stages in (("re-rank", "rerank_stages"), ("test", "test_stages"))
        if (table := spread(reader.results(number), [stage.id for stage in reader.stages(stages)]))
    }


def main() -> None:
    arms: dict[str, list[Mapping[str, float]]] = {}
    for path in sys.argv[1:]:
        driver, numbers = facts(Path(path))
        arms.setdefault(driver, []).append(numbers)
    print(common.environment())
    names = list(dict.fromkeys(name for runs in arms.values() for numbers in runs for name in numbers))
    print(f"{'':<38}" + "".join(f"{driver + f' ({len(runs)} runs)':>24}" for driver, runs in sorted(arms.items())))
    for name in names:
        row = f"{name:<38}"
        for _, runs in sorted(arms.items()):
            values = [numbers[name] for numbers in runs if name in numbers]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            row += f"{f'{statistics.fmean(values):.4f} ± {deviation:.4f}' if values else '-':>24}"
        print(row)


if __name__ == "__main__":
    main()

"""How a run went, read from its store: what was evaluated when, where the time went, and where its winner came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layersearch.search.candidate import Candidate
from layersearch.search.rerank import mean_value
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Objective

__all__ = ["Evaluated", "Judged", "StageTime", "evaluated", "judged_by", "lineage", "stage_times"]


@dataclass(frozen=True)
class Judged:
    """The number by which the search orders candidates: its one objective that has a weight, or the mean of several."""

    objectives: tuple[Objective, ...]

    @property
    def only(self) -> Objective | None:
        """The objective, if there is just one."""
        return self.objectives[0] if len(self.objectives) == 1 else None

    @property
    def name(self) -> str:
        return "mean of the objectives" if self.only is None else self.only.name

    @property
    def maximize(self) -> bool:
        return self.only is None or self.only.maximize

    def value(self, fitness: Mapping[str, float]) -> float | None:
        """None where an objective was not measured."""
        if any(o.name not in fitness for o in self.objectives):
            return None
        return mean_value(fitness, self.objectives) if self.only is None else fitness[self.only.name]


@dataclass(frozen=True)
class Evaluated:
    """One evaluated candidate, and all core-time of the search, in seconds, when its last result was written."""

    candidate: Candidate
    core_s: float
    value: float


@dataclass(frozen=True)
class StageTime:
    """How often a stage was run and passed, and its core-time in seconds, of candidates and baselines together."""

    stage: str
    n_runs: int
    n_passed: int
    core_s: float


def judged_by(objectives: Sequence[Objective]) -> Judged:
    """Of the objectives of a run."""
    return Judged(tuple(o for o in objectives if o.weight))


def evaluated(reader: StoreReader) -> list[Evaluated]:
    """In the order in which they were done."""
    judged, counted = judged_by(reader.objectives()), set(reader.evaluated())
    core_s, found = 0.0, dict[int, float]()
    for number, cpu_s in reader.spent():
        core_s += cpu_s
        found.pop(number, None)
        found[number] = core_s
    rows = []
    for number, when in found.items():
        if number in counted:
            candidate = reader.candidate(number)
            value = judged.value(candidate.fitness)
            if value is not None:
                rows.append(Evaluated(candidate, when, value))
    return rows


def stage_times(reader: StoreReader) -> list[StageTime]:
    """In the order of the funnel, then re-rank and test; by name, so that the trainings of a re-rank are one row."""
    totals = reader.stage_totals()
    named: dict[str, list[tuple[int, int, float]]] = {}
    for kind, title in (("stages", None), ("rerank_stages", "re-rank"), ("test_stages", "test")):
        for stage in reader.stages(kind):
            if stage.id in totals:
                named.setdefault(title or stage.name, []).append(totals[stage.id])
    return [
        StageTime(name, sum(n for n, _, _ in rows), sum(p for _, p, _ in rows), sum(s for _, _, s in rows))
        for name, rows in named.items()
    ]


def lineage(reader: StoreReader, number: int) -> list[Candidate]:
    """A candidate and its ancestors by the first parent of each, the youngest first."""
    line = [reader.candidate(number)]
    while line[-1].parents:
        line.append(reader.candidate(line[-1].parents[0]))
    return line

"""Reading a run's store: counts, candidates, results, the best ones. Works while the run goes on."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from layersearch.errors import StoreError
from layersearch.search.candidate import Candidate, StageResult
from layersearch.search.counts import Counts
from layersearch.search.rerank import pareto_front, ranked, rerank_value
from layersearch.search.schedulers.base import Promotion
from layersearch.search.store_schema import STORE_FILE, connect_reading
from layersearch.spaces.contracts import JsonObject, Objective, Outcome, Stage

__all__ = ["StoreReader"]

_CANDIDATE = (
    "number, slot, origin, genome, key, function_key, novelty, parents, state, stage, reason, duplicate_of, known_as, "
    "name, fitness, seen, told"
)
_RESULT = (
    "candidate, stage, state, reason, measured, lim, metrics, fitness, checkpoint, attempts, duration_s, cpu_s, seq"
)


class StoreReader:
    """A read-only view of ``<run_dir>/run.sqlite``; a context manager.

    Candidates of a deterministic run that lie after its last counted slot are in the file and in ``candidate()``, but
    not in ``counts()``, ``best()`` and ``evaluated()``.

    Raises: StoreError if there is no store, or it is of another schema; on leaving, if it could not be read.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = Path(run_dir)
        self.path = self.run_dir / STORE_FILE
        self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        return connect_reading(self.path)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()
        if kind in (sqlite3.DatabaseError, sqlite3.OperationalError, json.JSONDecodeError):
            raise StoreError(
                f"the store {self.path} must be whole, but cannot be read ({value}); put a copy of it in its place"
            ) from None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the store at one moment; one snapshot inside another is of the same moment."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            if self._db.in_transaction:  # a damaged file ends it
                self._db.execute("COMMIT")

    def meta(self, key: str, default: Any = None) -> Any:
        """A fact of the run, plain data: ``run`` (settings), ``space`` {name, entry, settings}, ``state`` (running,
        interrupted, finished), ``phase`` (search, baselines, rerank, test, done), ``elapsed_s`` (of the search),
        ``end_slot``, ``end_turn``, ``rerank`` (numbers), ``winner`` (number), ``objectives``, ``stages``,
        ``rerank_stages``, ``test_stages``, ``version``, ``replay`` (name of the run that is followed)."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    @property
    def state(self) -> str:
        """``running``, ``interrupted`` or ``finished`` as last written; a killed run still says running
        (``layersearch.search.lock.run_state`` asks the lock, too)."""
        return str(self.meta("state", "interrupted"))

    def objectives(self) -> tuple[Objective, ...]:
        return tuple(Objective(**row) for row in self.meta("objectives", ()))

    def stages(self, kind: str = "stages") -> tuple[Stage, ...]:
        """``kind`` is ``stages``, ``rerank_stages`` or ``test_stages``."""
        return tuple(Stage(**row) for row in self.meta(kind, ()))

    def counts(self) -> Counts:
        """``counts().to_json()`` is the counts object of ``search show``."""
        where, values = self._counted()
        counts = Counts()
        query = f"SELECT state, stage, count(*) FROM candidates WHERE {where} GROUP BY state, stage"
        for state, stage, n in self._db.execute(query, values):
            counts.add(state, stage, n)
        return counts

    def _counted(self) -> tuple[str, tuple[int, ...]]:
        """SQL condition on the candidates that the run counts."""
        end_slot = self.meta("end_slot")
        return ("number >= 0", ()) if end_slot is None else ("number >= 0 AND slot <= ?", (end_slot,))

    def candidate(self, number: int) -> Candidate:
        """Raises: StoreError if there is none of that number."""
        for candidate in self._candidates("number = ?", (number,)):
            return candidate
        last = self._db.execute("SELECT max(number) FROM candidates").fetchone()[0]
        raise StoreError(f"candidate must be one of 0 to {-1 if last is None else last}, got {number}; see search show")

    def candidates(self) -> Iterator[Candidate]:
        """All of the search, in order of proposal."""
        return self._candidates("number >= 0")

    def numbered(self, first: int, last: int) -> list[Candidate]:
        """Candidates with these numbers, both included, as far as there are any."""
        return list(self._candidates("number BETWEEN ? AND ?", (first, last)))

    def baselines(self) -> list[Candidate]:
        """In the order of ``space.baselines()``."""
        return list(self._candidates("number < 0"))[::-1]

    def results(self, number: int) -> list[StageResult]:
        """Results of one candidate in the order they came in."""
        query = f"SELECT {_RESULT} FROM results WHERE candidate = ? ORDER BY seq"
        selections = self.selections(number)
        return [_result(row, selections) for row in self._db.execute(query, (number,))]

    def selections(self, number: int) -> dict[str, JsonObject]:
        """What the stages of one candidate selected, by stage."""
        if not self._has_table("selections"):
            return {}  # of schema 1 or 2
        query = "SELECT stage, selection FROM selections WHERE candidate = ?"
        return {stage: json.loads(text) for stage, text in self._db.execute(query, (number,))}

    def selection(self, number: int) -> JsonObject | None:
        """What a candidate selected in the first training of the re-rank, or else in the search; None if nothing."""
        found = self.selections(number)
        last_first = [*self.stages("rerank_stages")[:1], *reversed(self.stages())]
        return next((found[stage.id] for stage in last_first if stage.id in found), None)

    def _has_table(self, name: str) -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None

    def outcome(self, number: int, stage: str) -> Outcome | None:
        """Outcome of one stage of one candidate, if it was run."""
        query = f"SELECT {_RESULT} FROM results WHERE candidate = ? AND stage = ?"
        row = self._db.execute(query, (number, stage)).fetchone()
        return None if row is None else _result(row, self.selections(number)).outcome

    def metrics(self, number: int) -> dict[str, float]:
        """All metrics of one candidate from the stages of the search, by name."""
        stages = {stage.id for stage in self.stages()}
        found: dict[str, float] = {}
        for result in self.results(number):
            if result.stage in stages:
                found.update(result.outcome.metrics)
        return found

    def promotions(self) -> list[tuple[int, Promotion]]:
        """Turn and promotion of each that counts, in order; see ``Store.promoted``."""
        if not self._has_table("promotions"):
            return []  # of schema 1
        end_turn = self.meta("end_turn")
        query = "SELECT turn, candidate, rung FROM promotions WHERE ? IS NULL OR turn <= ? ORDER BY turn"
        return [(turn, Promotion(number, rung)) for turn, number, rung in self._db.execute(query, (end_turn, end_turn))]

    def promotions_seen(self) -> dict[int, int]:
        """How many tells the driver had heard when it was decided on a promotion, by turn."""
        return dict(self._db.execute("SELECT turn, seen FROM promotions"))

    def measured(self) -> dict[int, dict[str, dict[str, float]]]:
        """What the stages of the search measured, by candidate of the search, stage and objective."""
        stages = [stage.id for stage in self.stages()]
        query = (
            "SELECT candidate, stage, fitness FROM results WHERE candidate >= 0 AND state = 'passed' "
            f"AND fitness != '{{}}' AND stage IN ({', '.join('?' * len(stages))})"
        )
        found: dict[int, dict[str, dict[str, float]]] = {}
        for number, stage, fitness in self._db.execute(query, stages):
            found.setdefault(number, {})[stage] = json.loads(fitness)
        return found

    def stage_costs(self) -> dict[str, tuple[float, float]]:
        """Of each stage of the search: mean CPU time in seconds where it was passed, and the share that passed it."""
        query = (
            "SELECT stage, avg(CASE state WHEN 'passed' THEN cpu_s END), avg(state = 'passed') FROM results "
            "WHERE candidate >= 0 AND state != 'failed' GROUP BY stage"
        )
        return {stage: (mean_s or 0.0, share) for stage, mean_s, share in self._db.execute(query)}

    def passed_stages(self) -> list[tuple[int, str, str, set[str]]]:
        """Number, state, reason and passed stages of each that counts and passed one, in order of proposal."""
        where, values = self._counted()
        query = (
            "SELECT number, candidates.state, candidates.reason, results.stage FROM candidates "
            f"JOIN results ON candidate = number WHERE results.state = 'passed' AND {where} ORDER BY number"
        )
        found: dict[int, tuple[int, str, str, set[str]]] = {}
        for number, state, reason, stage in self._db.execute(query, values):
            found.setdefault(number, (number, state, reason, set()))[3].add(stage)
        return list(found.values())

    def search_core_s(self) -> float:
        """CPU time of all stages of the search, in seconds; baselines and re-rank not included."""
        stages = [stage.id for stage in self.stages()]
        marks = ", ".join("?" * len(stages))
        query = f"SELECT coalesce(sum(cpu_s), 0) FROM results WHERE candidate >= 0 AND stage IN ({marks})"
        return float(self._db.execute(query, stages).fetchone()[0])

    def spent(self) -> list[tuple[int, float]]:
        """Candidate and CPU time in seconds of all results of the search, baselines not included, as they came in."""
        stages = [stage.id for stage in self.stages()]
        query = (
            f"SELECT candidate, cpu_s FROM results WHERE candidate >= 0 AND stage IN ({', '.join('?' * len(stages))}) "
            "ORDER BY seq"
        )
        return list(self._db.execute(query, stages))

    def stage_totals(self) -> dict[str, tuple[int, int, float]]:
        """Of each stage: how often it was run and passed, and its CPU time in seconds, baselines included."""
        query = "SELECT stage, count(*), sum(state = 'passed'), sum(cpu_s) FROM results GROUP BY stage"
        return {stage: (n, passed, cpu_s) for stage, n, passed, cpu_s in self._db.execute(query)}

    def evaluated(self) -> dict[int, dict[str, float]]:
        """Fitness of every evaluated candidate, by number."""
        where, values = self._counted()
        query = f"SELECT number, fitness FROM candidates WHERE state = 'evaluated' AND {where} ORDER BY number"
        return {number: json.loads(fitness) for number, fitness in self._db.execute(query, values)}

    def n_seeds(self) -> int:
        """How many of the evaluated candidates are known layers that the search was given."""
        where, values = self._counted()
        query = f"SELECT count(*) FROM candidates WHERE state = 'evaluated' AND origin = 'seed' AND {where}"
        return int(self._db.execute(query, values).fetchone()[0])

    def front(self) -> list[int]:
        """Numbers of the Pareto front over the objectives of the search, best mean first."""
        return pareto_front(self.evaluated(), self.objectives())

    def order(self) -> list[int]:
        """Evaluated candidates, best first: those re-ranked by that value, then the others in the search's order."""
        order = ranked(self.evaluated(), self.objectives())
        again = {number: self.rerank_value(number) for number in self.meta("rerank", ()) if number in set(order)}
        measured = [n for n in order if again.get(n) is not None]
        measured.sort(key=lambda n: -(again[n] or 0.0))
        done = set(measured)
        return measured + [n for n in order if n not in done]

    def winner(self) -> int | None:
        """The winner of the re-rank, else the best of the search; ``None`` if nothing was evaluated."""
        chosen = self.meta("winner")
        return int(chosen) if chosen is not None else next(iter(self.order()), None)

    def rerank_value(self, number: int) -> float | None:
        """Mean over everything measured in the re-rank (larger is better); ``None`` if it was not passed to the end."""
        stages = [stage.id for stage in self.stages("rerank_stages")]
        return rerank_value(self.results(number), stages, self.objectives()) if stages else None

    def best(self, k: int | None = None) -> list[Candidate]:
        """The first ``k`` of ``order()`` (all by default)."""
        return [self.candidate(number) for number in self.order()[:k]]

    def genome(self, number: int) -> JsonObject:
        row = self._db.execute("SELECT genome FROM candidates WHERE number = ?", (number,)).fetchone()
        genome: JsonObject = json.loads(row[0])
        return genome

    def rejections(self) -> list[tuple[str, str, int]]:
        """Stage name (``screen`` for the screen), reason and number of candidates, most frequent first."""
        where, values = self._counted()
        query = (
            "SELECT coalesce(stage, 'screen'), reason, count(*) AS n FROM candidates "
            f"WHERE (state IN ('screened_out', 'rejected', 'failed') OR (state = 'stopped' AND told IS NOT NULL)) "
            f"AND {where} GROUP BY 1, 2 ORDER BY n DESC, 1, 2"
        )
        return list(self._db.execute(query, values))

    def _candidates(self, where: str, values: Sequence[object] = ()) -> Iterator[Candidate]:
        for row in self._db.execute(f"SELECT {_CANDIDATE} FROM candidates WHERE {where} ORDER BY number", values):
            yield _candidate(row)


def _candidate(row: tuple[Any, ...]) -> Candidate:
    number, slot, origin, genome, key, function_key, novelty, parents, *rest = row
    state, stage, reason, duplicate_of, known_as, name, fitness, seen, told = rest
    return Candidate(
        number, slot, origin, json.loads(genome), key, function_key, novelty, tuple(json.loads(parents)),
        state, stage, reason, duplicate_of, known_as, name, json.loads(fitness), seen, told,
    )  # fmt: skip


def _result(row: tuple[Any, ...], selections: Mapping[str, JsonObject]) -> StageResult:
    candidate, stage, state, reason, measured, limit, metrics, fitness, checkpoint, attempts, duration, cpu, seq = row
    outcome = Outcome(
        state, reason, measured, limit, json.loads(metrics), json.loads(fitness), duration_s=duration, cpu_s=cpu,
        selection=selections.get(stage),
    )  # fmt: skip
    return StageResult(candidate, stage, outcome, checkpoint, attempts, seq)

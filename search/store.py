"""Writing a run's store: one writer, one transaction per event, so that a kill loses nothing that was told."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from layersearch.errors import RunError
from layersearch.search.candidate import REMOVED, Candidate, Finish, StageResult, State
from layersearch.search.schedulers.base import Promotion
from layersearch.search.store_reader import StoreReader
from layersearch.search.store_schema import connect_writing

__all__ = ["Store"]


class Store(StoreReader):
    """The store of a run, for its runner.

    *Asked* is committed before a job is dispatched, *told* before the driver hears of it. Cost per event does not grow
    with the run.

    Raises: StoreError if the file is not a store, of a newer schema, or cannot be written; RunError when a commit fails
        (disk full): everything committed before is kept and the run can be resumed.
    """

    def _connect(self) -> sqlite3.Connection:
        connection = connect_writing(self.path)
        self._inode = self.path.stat().st_ino
        return connection

    def close(self) -> None:
        """Brings everything into the one file: a reader that closes later could not, and copies would be empty."""
        with suppress(sqlite3.Error):  # what is committed is safe in the log, too
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        super().close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is written as one, or not at all.

        SQLite would go on with a file that has no name any more, as if it were kept.
        """
        if not self._is_there():
            raise RunError(
                f"the store of a run must stay while it runs, and {self.path} is gone; resume the run where it is now"
            )
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:  # also a second Ctrl-C
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise RunError(
                f"every event must be written to {self.path}, but that failed ({error}); "
                "make room or repair the disk, then resume the run"
            ) from error

    def _is_there(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def set_meta(self, **values: object) -> None:
        """Facts of the run by key; must be plain data. Inside or outside of ``transaction``."""
        if self._db.in_transaction:
            self._set_meta(values)
        else:
            with self.transaction():
                self._set_meta(values)

    def _set_meta(self, values: dict[str, object]) -> None:
        self._db.executemany(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(key, json.dumps(value)) for key, value in values.items()],
        )

    def asked(self, candidates: Sequence[Candidate]) -> None:
        """All candidates proposed for one slot (or the baselines), in one commit."""
        rows = [
            (
                c.number, c.slot, c.origin, _text(c.genome), c.key, c.function_key, c.novelty, _text(c.parents),
                c.state, c.stage, c.reason, c.duplicate_of, c.known_as, c.name, _text(c.fitness), c.seen, c.told,
            )
            for c in candidates
        ]  # fmt: skip
        with self.transaction():
            self._db.executemany(f"INSERT INTO candidates VALUES ({', '.join('?' * 17)})", rows)

    def told(self, result: StageResult, finish: Finish | None = None, elapsed_s: float | None = None) -> list[str]:
        """One stage result and, with the last one, what became of its candidate.

        A stage that ran again (its checkpoint was gone) keeps its row; what it cost adds up.

        Returns: hashes of checkpoints that nothing refers to any more; their files may be deleted.
        """
        o = result.outcome
        row = (
            result.candidate, result.stage, o.state, o.reason, o.measured, o.limit, _text(dict(o.metrics)),
            _text(dict(o.fitness)), result.checkpoint, result.attempts, o.duration_s, o.cpu_s,
        )  # fmt: skip
        with self.transaction():
            self._db.execute(
                "INSERT INTO results (candidate, stage, state, reason, measured, lim, metrics, fitness, checkpoint, "
                f"attempts, duration_s, cpu_s) VALUES ({', '.join('?' * 12)}) ON CONFLICT (candidate, stage) DO UPDATE "
                "SET state = excluded.state, reason = excluded.reason, measured = excluded.measured, "
                "lim = excluded.lim, metrics = excluded.metrics, fitness = excluded.fitness, "
                "checkpoint = excluded.checkpoint, attempts = excluded.attempts, "
                "duration_s = duration_s + excluded.duration_s, cpu_s = cpu_s + excluded.cpu_s",
                row,
            )
            key = (result.candidate, result.stage)
            self._db.execute("DELETE FROM selections WHERE candidate = ? AND stage = ?", key)
            if o.selection is not None:
                self._db.execute("INSERT INTO selections VALUES (?, ?, ?)", (*key, _text(o.selection)))
            if elapsed_s is not None:
                self._set_meta({"elapsed_s": elapsed_s})
            return [] if finish is None else self._finish(result.candidate, finish)

    def promoted(self, turn: int, promotion: Promotion, seen: int) -> None:
        """A paused candidate goes on from its rung.

        Args:
            turn: number of this decision; those of new candidates are the numbers that no promotion has, in slot order.
            seen: finished candidates that the driver had heard of.
        """
        with self.transaction():
            row = (turn, promotion.candidate, promotion.rung, seen)
            self._db.execute("INSERT INTO promotions VALUES (?, ?, ?, ?)", row)
            self._db.execute("UPDATE candidates SET state = 'in_flight' WHERE number = ?", (promotion.candidate,))

    def finished(self, number: int, finish: Finish) -> list[str]:
        """What became of a candidate whose last result is already there. Returns as ``told``."""
        with self.transaction():
            return self._finish(number, finish)

    def _finish(self, number: int, finish: Finish) -> list[str]:
        if finish.state == "paused":
            self._db.execute("UPDATE candidates SET state = 'paused' WHERE number = ?", (number,))
            return []
        self._db.execute(
            "UPDATE candidates SET state = ?, stage = ?, reason = ?, fitness = ?, told = ? WHERE number = ?",
            (finish.state, finish.stage, finish.reason, _text(dict(finish.fitness)), finish.told, number),
        )
        return self._release([number])

    def release(self, numbers: Iterable[int]) -> list[str]:
        """Marks the checkpoints of candidates as removed. Returns the hashes that nothing else refers to."""
        with self.transaction():
            return self._release(numbers)

    def _release(self, numbers: Iterable[int]) -> list[str]:
        freed: list[str] = []
        for number in numbers:
            query = "SELECT checkpoint FROM results WHERE candidate = ? AND checkpoint > ''"
            hashes = {row[0] for row in self._db.execute(query, (number,))}
            if not hashes:
                continue
            self._db.execute(
                "UPDATE results SET checkpoint = ? WHERE candidate = ? AND checkpoint > ''", (REMOVED, number)
            )
            for name in sorted(hashes):
                if self._db.execute("SELECT 1 FROM results WHERE checkpoint = ? LIMIT 1", (name,)).fetchone() is None:
                    freed.append(name)
        return freed

    def checkpoints(self) -> set[str]:
        """Hashes that results refer to; files of any other name are left over from a crash."""
        query = "SELECT DISTINCT checkpoint FROM results WHERE checkpoint > ''"
        return {row[0] for row in self._db.execute(query)}

    def known_keys(self) -> Iterator[tuple[int, str | None, str | None, int | None]]:
        """Number, structural key, functional key and ``duplicate_of`` of every candidate of the search."""
        query = "SELECT number, key, function_key, duplicate_of FROM candidates WHERE number >= 0 ORDER BY number"
        yield from self._db.execute(query)

    def slots(self) -> Iterator[tuple[int, int, State, dict[str, float], int, int | None]]:
        """Slot, number, state, fitness, number of stages passed in the search and ``told`` of the candidate of each
        slot that passed the screen, in slot order."""
        stages = [stage.id for stage in self.stages()]
        query = (
            "SELECT slot, number, state, fitness, (SELECT count(*) FROM results WHERE candidate = number AND "
            f"results.state = 'passed' AND results.stage IN ({', '.join('?' * len(stages))})), told FROM candidates "
            "WHERE number >= 0 AND state NOT IN ('screened_out', 'duplicate') ORDER BY slot"
        )
        for slot, number, state, fitness, n_passed, told in self._db.execute(query, stages):
            yield slot, number, state, json.loads(fitness), n_passed, told

    def end_search(
        self, end_slot: int | None, elapsed_s: float, end_turn: int | None = None, late: Iterable[int] = ()
    ) -> None:
        """Candidates in flight become stopped. Those after ``end_slot`` (deterministic runs) no longer count.

        Args:
            end_turn: the last turn that counts (deterministic runs).
            late: candidates that were finished by a later turn, and count as stopped.
        """
        with self.transaction():
            self._db.execute(
                "UPDATE candidates SET state = 'stopped' WHERE state IN ('in_flight', 'paused') AND number >= 0"
            )
            self._db.executemany(
                "UPDATE candidates SET state = 'stopped', stage = NULL, reason = '', fitness = '{}', told = NULL "
                "WHERE number = ?",
                [(number,) for number in late],
            )
            self._set_meta({"end_slot": end_slot, "end_turn": end_turn, "elapsed_s": elapsed_s, "phase": "baselines"})

    def reopen_search(self) -> None:
        """The run goes on: what the end of the search stopped is in flight again, and no slot is the last one. What
        comes is not that of the run that it may have replayed."""
        with self.transaction():
            self._db.execute("UPDATE candidates SET state = 'in_flight' WHERE state = 'stopped' AND told IS NULL")
            nobody = dict.fromkeys(("end_slot", "end_turn", "replay", "winner"))
            self._set_meta({**nobody, "phase": "search", "rerank": []})

    def stopped(self) -> list[int]:
        """Numbers of the candidates that are stopped and have a checkpoint."""
        query = (
            "SELECT DISTINCT number FROM candidates JOIN results ON candidate = number "
            "WHERE candidates.state = 'stopped' AND checkpoint > ''"
        )
        return [row[0] for row in self._db.execute(query)]


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))

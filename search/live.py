"""What a user sees while a run goes on: a live view in a terminal, a line now and then elsewhere."""

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from layersearch.errors import LayerSearchError
from layersearch.search.candidate import Candidate
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.rerank import mean_value
from layersearch.search.run_settings import RunSettings
from layersearch.search.runner import RunEvent
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Objective, Space

__all__ = ["LINE_S", "Found", "Moment", "Progress", "clock", "funnel_rows", "line", "watching"]

PERIOD_S = 0.5  # of the live view; drawing costs some milliseconds of a training that runs in this process
LINE_S = 10.0
"""Between two lines about the same."""
_FRONT = 6


@dataclass(frozen=True)
class Found:
    """What the store says: stage names in the order of the funnel, the best candidates so far, and how many of the
    evaluated ones are seeds."""

    stages: tuple[str, ...] = ()
    objectives: tuple[Objective, ...] = ()
    best: Candidate | None = None
    formula: str = ""
    front: tuple[Candidate, ...] = ()
    n_seeds: int = 0


@dataclass(frozen=True)
class Moment:
    """The run as it is now. ``eta_s`` is the time to the end of the phase, ``None`` while nothing can be said."""

    run: str
    phase: str
    counts: Mapping[str, Any]
    elapsed_s: float
    asked_per_s: float
    evaluations: int | None
    done: int
    total: int
    eta_s: float | None
    last: str
    stopping: bool
    found: Found


@dataclass(frozen=True)
class _Heard:
    """What the latest events said. ``at_s``, ``began_s`` and ``phase_began_s`` are readings of the clock; what is
    named ``before`` was there when this process began, or its phase."""

    phase: str = "start"
    counts: Mapping[str, Any] = field(default_factory=dict)
    elapsed_s: float = 0.0
    at_s: float = 0.0
    phase_began_s: float = 0.0
    done: int = 0
    total: int = 0
    done_before: int = 0
    last: str = ""
    last_number: int = 0
    began_s: float = 0.0
    asked_before: int = 0
    evaluated_before: int = 0


class Progress:
    """Keeps what the events say; another thread asks for the ``moment``.

    An event replaces one attribute (also from the signal handler: no locks), which costs microseconds. The store is
    read by the thread that draws, and only when another candidate was evaluated.
    """

    def __init__(self, run_dir: Path, spec: SpaceSpec, settings: RunSettings) -> None:
        self.run_dir = run_dir
        self.stopping = False
        self._spec = spec
        self._settings = settings
        self._heard = _Heard()
        self._found = Found()
        self._found_at = -1
        self._reader: StoreReader | None = None
        self._space: Space | None = None
        self._since: tuple[float, int] | None = None  # time and evaluated candidates when the last seed was through

    def on_event(self, event: RunEvent) -> None:
        """For ``Runner``."""
        if event.kind == "interrupt":
            self.stopping = True
            return
        before, now = self._heard, time.monotonic()
        counts = event.counts.to_json()
        first = before.phase == "start"
        last, last_number = before.last, before.last_number
        done_before = before.done_before if event.phase == before.phase else 0
        if event.report is not None:
            result, outcome = event.report.result, event.report.result.outcome
            reason = f": {outcome.reason}" if outcome.reason else ""
            last = f"{result.stage} {outcome.state} in {outcome.duration_s:.1f} s{reason}"
            last_number = result.candidate
            if event.total and not before.total:  # the first of its phase
                done_before = event.done - (event.report.track.next_stage() is None)
        self._heard = _Heard(
            phase=event.phase,
            counts=counts,
            elapsed_s=event.elapsed_s,
            at_s=now,
            phase_began_s=now if event.phase != before.phase else before.phase_began_s,
            done=event.done,
            total=event.total,
            done_before=done_before,
            last=last,
            last_number=last_number,
            began_s=now if first else before.began_s,
            asked_before=counts["asked"] if first else before.asked_before,
            evaluated_before=counts["evaluated"] if first else before.evaluated_before,
        )

    def moment(self) -> Moment:
        """For the thread that draws."""
        heard, now = self._heard, time.monotonic()
        n_evaluated = heard.counts.get("evaluated", 0)
        if n_evaluated != self._found_at:
            self._look(n_evaluated)
        elapsed_s = heard.elapsed_s + (now - heard.at_s if heard.phase == "search" else 0.0)
        n_asked = heard.counts.get("asked", 0) - heard.asked_before
        return Moment(
            run=self.run_dir.name,
            phase=heard.phase,
            counts=heard.counts,
            elapsed_s=elapsed_s,
            asked_per_s=n_asked / max(1e-3, now - heard.began_s),
            evaluations=self._settings.evaluations,
            done=heard.done,
            total=heard.total,
            eta_s=self._eta_s(heard, elapsed_s, now),
            last=f"{self._who(heard.last_number)} {heard.last}" if heard.last else "",
            stopping=self.stopping,
            found=self._found,
        )

    def _eta_s(self, heard: _Heard, elapsed_s: float, now: float) -> float | None:
        """Time left of this phase at its speed so far.

        The speed of the search is that after its seeds: they pass the funnel, while most of the others do not.
        """
        if heard.phase != "search":
            n = heard.done - heard.done_before
            return (now - heard.phase_began_s) / n * (heard.total - heard.done) if n > 0 else None
        if self._settings.minutes is not None:
            return max(0.0, 60 * self._settings.minutes - elapsed_s)
        n_evaluated: int = heard.counts.get("evaluated", 0)
        since_s, n_before = self._since or (heard.began_s, heard.evaluated_before)
        if self._settings.evaluations is None or n_evaluated <= n_before:
            return None
        return (now - since_s) / (n_evaluated - n_before) * max(0, self._settings.evaluations - n_evaluated)

    def _who(self, number: int) -> str:
        if number >= 0:
            return f"#{number}"
        try:
            return str(self._reader.candidate(number).name) if self._reader is not None else "baseline"
        except (LayerSearchError, sqlite3.Error):
            return "baseline"

    def _look(self, n_evaluated: int) -> None:
        """Reads the best candidates. What cannot be read now (the store is being made) is read at the next drawing."""
        try:
            if self._reader is None:
                self._reader, self._space = StoreReader(self.run_dir), self._spec.build()
            assert self._space is not None, "made with the reader"
            reader = self._reader
            front = [reader.candidate(number) for number in reader.front()[:_FRONT]]
            best = front[0] if front else None
            formula = self._space.formula(self._space.from_json(best.genome)) if best else ""
            stages = tuple(dict.fromkeys(stage.name for stage in reader.stages()))
            n_seeds = reader.n_seeds()
            if n_seeds > self._found.n_seeds:
                self._since = (time.monotonic(), n_evaluated)
            self._found = Found(stages, reader.objectives(), best, formula, tuple(front), n_seeds)
            self._found_at = n_evaluated
        except (LayerSearchError, sqlite3.Error):
            self._found_at = -1

    def close(self) -> None:
        """Called by the thread that drew."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _View(Protocol):
    def draw(self, moment: Moment) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """One line when a phase begins, when the run is being stopped, and every ``period_s``."""

    def __init__(self, period_s: float = LINE_S) -> None:
        self._period_s = period_s
        self._last: tuple[str, bool] = ("start", False)
        self._at = time.monotonic()

    def draw(self, moment: Moment) -> None:
        now = time.monotonic()
        state = (moment.phase, moment.stopping)
        if state != self._last or (now - self._at >= self._period_s and moment.phase != "start"):
            print(line(moment), file=sys.stderr, flush=True)
            self._last, self._at = state, now

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def watching(progress: Progress, quiet: bool) -> Iterator[None]:
    """Shows ``progress`` on stderr, from a thread of its own, until the block ends.

    Args:
        quiet: lines also in a terminal.
    """
    ended = threading.Event()

    def watch() -> None:
        view = _view(quiet)
        try:
            while not ended.wait(PERIOD_S):
                view.draw(progress.moment())
        except OSError:  # nobody reads stderr any more; the run goes on
            return
        finally:
            view.close()
            progress.close()

    thread = threading.Thread(target=watch, name="watch-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _view(quiet: bool) -> _View:
    if quiet or not sys.stderr.isatty():
        return _Lines()
    from layersearch.search.live_view import LiveView

    return LiveView()


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``.

    >>> clock(3723), clock(123.9)
    ('1:02:03', '2:03')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def funnel_rows(counts: Mapping[str, Any], stages: Sequence[str]) -> list[tuple[str, int, int]]:
    """Name of each step of the funnel, how many it removed, and how many were left after it, in flight included.

    >>> counts = {"asked": 9, "screened_out": 4, "duplicates": 2, "rejected": {"quality": 1}, "evaluated": 2}
    >>> funnel_rows(counts, ["probe", "quality"])
    [('screen', 4, 5), ('dedup', 2, 3), ('probe', 0, 3), ('quality', 1, 2)]
    """
    left = counts.get("asked", 0)
    rows = []
    removed = {
        "screen": counts.get("screened_out", 0),
        "dedup": counts.get("duplicates", 0),
        **dict.fromkeys(stages, 0),
        **counts.get("rejected", {}),
        "failed": counts.get("failed", 0),
        "stopped": counts.get("stopped", 0),
    }
    for name, n in removed.items():
        left -= n
        if n or name not in ("failed", "stopped"):
            rows.append((name, n, left))
    return rows


def line(moment: Moment) -> str:
    """One line that says how the run is going."""
    counts, found = moment.counts, moment.found
    if moment.stopping:
        return f"{moment.run}: finishing what is running; Ctrl-C again stops at once"
    left = f", ends in {clock(moment.eta_s)}" if moment.eta_s is not None else ""
    if moment.phase != "search":
        plural = "" if moment.total == 1 else "s"
        through = f"{moment.done} of {moment.total} candidate{plural}" if moment.total else "begins"
        return f"{moment.run}: {moment.phase}, {through}{left}"
    goal = f" of {moment.evaluations}" if moment.evaluations is not None else ""
    rejected = sum(counts["rejected"].values())
    best = ""
    if found.best is not None:
        best = f"; best {mean_value(found.best.fitness, found.objectives):.4f} (#{found.best.number})"
    duplicates = f"{counts['duplicates']} duplicate{'' if counts['duplicates'] == 1 else 's'}"
    scheduled = "".join(f", {counts[state]} {state}" for state in ("paused", "stopped") if counts[state])
    return (
        f"{moment.run}: search {clock(moment.elapsed_s)}, {counts['evaluated']}{goal} evaluated, "
        f"{counts['asked']} asked ({moment.asked_per_s:.1f}/s), {counts['screened_out']} screened out, "
        f"{duplicates}, {rejected} rejected, {counts['failed']} failed{scheduled}{left}{best}"
    )

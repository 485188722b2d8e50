"""Runs a search from its first proposal to its winner, and goes on with one that was interrupted."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, TypeAlias

import layersearch
from layersearch.errors import StoreError
from layersearch.search.clock import Clock
from layersearch.search.counts import Counts
from layersearch.search.drivers.base import DRIVERS, Driver
from layersearch.search.executors.base import EXECUTORS, Executor, SpaceSpec
from layersearch.search.finishing import Finishing
from layersearch.search.lock import RunLock
from layersearch.search.replay import Recording
from layersearch.search.run_settings import ENDS, RunSettings
from layersearch.search.runs import find_run
from layersearch.search.schedulers.base import Scheduler
from layersearch.search.scheduling import Dispatcher, Report
from layersearch.search.searching import Search
from layersearch.search.store import Store
from layersearch.search.store_checkpoints import Checkpoints
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject, Space

__all__ = ["RunEvent", "RunSettings", "Runner"]

End: TypeAlias = Literal["finished", "interrupted"]


@dataclass(frozen=True)
class RunEvent:
    """Something to show. ``counts`` is the runner's own object: read it, do not keep it.

    Args:
        kind: ``start`` (or resume), ``phase`` begins, ``asked`` a slot, ``result`` of one stage, ``interrupt`` was
            asked for and running stages are being finished (sent from the signal handler).
        phase: ``search``, ``baselines``, ``rerank`` or ``test``.
        elapsed_s: of the search, over all resumes.
        report: of a result: its track, outcome, and what became of the candidate.
        done, total: of a phase after the search: candidates that are through it, and all of them.
    """

    kind: Literal["start", "phase", "asked", "result", "interrupt"]
    phase: str
    counts: Counts
    elapsed_s: float
    report: Report | None = None
    done: int = 0
    total: int = 0


class Runner:
    """One run in its folder. Makes the store if there is none, else resumes from it.

    Args:
        run_dir: folder of the run; must exist.
        space_spec: how the space is built, here and in workers.
        settings: of the run; must agree with what is recorded, but the end may be another, later one.
        on_event: called in this thread for everything worth showing.
        replay: name of the run in the same folder of runs whose recorded order this one follows, with its settings; a
            replay that goes on knows it.
    """

    def __init__(
        self,
        run_dir: Path,
        space_spec: SpaceSpec,
        settings: RunSettings,
        on_event: Callable[[RunEvent], None] | None = None,
        replay: str | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self._spec = space_spec
        self._settings = settings
        self._on_event = on_event
        self._replay = replay
        self._phase = "search"
        self._counts = Counts()
        self._clock = Clock(0.0)

    def run(self) -> End:
        """Runs until the end, or until Ctrl-C (once: running stages are finished; twice: at once).

        A finished run that is not asked for more returns at once.

        Raises: StoreError, RecipeError, DataError, UnknownNameError (bad input, nothing was run); RunError (the run had
            to stop and can be resumed).
        """
        space = self._spec.build()
        with RunLock(self.run_dir), Store(self.run_dir) as store, self._interruptible() as interrupted:
            recorded = store.meta("run")
            noisy = [o.name for o in space.objectives if o.noisy]
            settings = self._settings.resolved(noisy) if recorded is None else self._settings.resuming(recorded)
            self._check_space(store, space)
            if self._replay is not None:
                store.set_meta(replay=self._replay)
            goes_on = _wants_more(store, settings)
            if store.meta("phase") == "done" and not goes_on:
                return "finished"
            driver = DRIVERS[settings.driver](space, settings.population, settings.driver_settings)
            scheduler = settings.make_scheduler(space)
            settings.baselines_of(space)  # which are asked for much later
            make = EXECUTORS[settings.backend]
            executor = make(self._spec, space, settings.workers, settings.device, settings.resources)
            end: End = "interrupted"
            try:
                self._record(store, space, settings)
                if goes_on and store.meta("phase") != "search":
                    store.reopen_search()
                with self._recording(store, space) as recording:
                    end = self._work(store, space, settings, driver, scheduler, executor, interrupted, recording)
            except KeyboardInterrupt:
                end = "interrupted"
            finally:
                executor.close(now=True)
                store.set_meta(state=end, elapsed_s=self._clock.elapsed_s())
            return end

    def _work(
        self,
        store: Store,
        space: Space,
        settings: RunSettings,
        driver: Driver,
        scheduler: Scheduler,
        executor: Executor,
        interrupted: Callable[[], bool],
        recording: Recording | None,
    ) -> End:
        checkpoints = Checkpoints(self.run_dir)
        checkpoints.sweep(store.checkpoints())
        self._clock = Clock(store.meta("elapsed_s", 0.0))
        stages = (*space.stages, *space.rerank_stages, *space.test_stages)
        revised = None if recording is None else recording.revised
        dispatcher = Dispatcher(executor, store, checkpoints, stages, self._clock.elapsed_s, revised)
        if store.meta("phase") != "search":
            self._counts = store.counts()
            self._show("start")
        else:
            search = Search(
                space, driver, scheduler, store, dispatcher, settings, self._clock, self._show_search, recording
            )
            search.restore()
            self._counts = search.counts
            self._show("start")
            if not search.run(interrupted):
                return "interrupted"
            self._counts = search.counts
        finishing = Finishing(space, store, dispatcher, checkpoints, settings, self._show_phase, self._show_report)
        return "finished" if finishing.run(interrupted) else "interrupted"

    @contextmanager
    def _recording(self, store: Store, space: Space) -> Iterator[Recording | None]:
        """Of the run that this one replays, if it does."""
        name = store.meta("replay")
        if name is None:
            yield None
            return
        with StoreReader(find_run(self.run_dir.parent, name)) as reader:
            _check_units(reader, space)
            yield Recording(reader)

    def _check_space(self, store: Store, space: Space) -> None:
        """A run has one space; only where its data lies may change."""
        recorded = store.meta("space")
        mine = _space_facts(self._spec, space)
        if recorded is not None and _but_data_dir(recorded) != _but_data_dir(mine):
            changed = [k for k, v in mine["settings"].items() if recorded["settings"].get(k) != v] or ["entry"]
            raise StoreError(
                f"the space of a run must not change, got another value of {', '.join(changed)} than is recorded; "
                "resume with the recorded recipe or start another run"
            )
        _check_units(store, space)

    def _record(self, store: Store, space: Space, settings: RunSettings) -> None:
        store.set_meta(
            run=settings.to_json(),
            space=_space_facts(self._spec, space),
            state="running",
            phase=store.meta("phase", "search"),
            version=layersearch.__version__,
            objectives=[asdict(objective) for objective in space.objectives],
            stages=[asdict(stage) for stage in space.stages],
            rerank_stages=[asdict(stage) for stage in space.rerank_stages],
            test_stages=[asdict(stage) for stage in space.test_stages],
        )

    @contextmanager
    def _interruptible(self) -> Iterator[Callable[[], bool]]:
        """Counts Ctrl-C and SIGTERM: the first is noted, the second raises KeyboardInterrupt. Main thread only."""
        n_signals = 0

        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal n_signals
            n_signals += 1
            if n_signals > 1:
                raise KeyboardInterrupt
            self._show("interrupt")

        if threading.current_thread() is not threading.main_thread():
            yield lambda: False
            return
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield lambda: n_signals > 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _show(
        self,
        kind: Literal["start", "phase", "asked", "result", "interrupt"],
        report: Report | None = None,
        done: int = 0,
        total: int = 0,
    ) -> None:
        if self._on_event is not None:
            event = RunEvent(kind, self._phase, self._counts, self._clock.elapsed_s(), report, done, total)
            self._on_event(event)

    def _show_search(self, report: Report | None) -> None:
        self._show("asked" if report is None else "result", report)

    def _show_phase(self, phase: str) -> None:
        self._phase = phase
        self._show("phase")

    def _show_report(self, report: Report, done: int, total: int) -> None:
        self._show("result", report, done, total)


def _wants_more(store: Store, settings: RunSettings) -> bool:
    """Whether a search that has ended would go on under these settings; a replay does for another end alone."""
    recorded = store.meta("run")
    if (
        recorded is not None
        and store.meta("replay") is not None
        and all(recorded[name] == getattr(settings, name) for name in ENDS)
    ):
        return False
    enough = settings.evaluations is not None and store.counts()["evaluated"] >= settings.evaluations
    late = settings.minutes is not None and store.meta("elapsed_s", 0.0) >= 60 * settings.minutes
    spent = settings.core_minutes is not None and store.search_core_s() >= 60 * settings.core_minutes
    return not (enough or late or spent)


def _check_units(reader: StoreReader, space: Space) -> None:
    """Raises: StoreError if an objective is recorded in another unit than that in which it would be measured."""
    units = {objective.name: objective.unit for objective in space.objectives}
    for objective in reader.objectives():
        if objective.unit != units.get(objective.name, objective.unit):
            raise StoreError(
                f"the unit of an objective must not change, but {objective.name} is recorded in '{objective.unit}' "
                f"and would be measured in '{units[objective.name]}' by this version; start another run"
            )


def _space_facts(spec: SpaceSpec, space: Space) -> JsonObject:
    return {"name": space.name, "entry": spec.entry, "settings": json.loads(json.dumps(spec.settings))}


def _but_data_dir(facts: JsonObject) -> JsonObject:
    return facts | {"settings": {k: v for k, v in facts["settings"].items() if k != "data_dir"}}

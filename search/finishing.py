"""After the search: baselines are trained, the best and the baselines measured again, and the winner tested once.

Controls are baselines that are made for the winner, once it is known.
"""

from collections.abc import Callable, Sequence

from layersearch.primitives.seeds import Seeds
from layersearch.search.candidate import Candidate, Finish
from layersearch.search.rerank import ranked, spread, winner
from layersearch.search.run_settings import RunSettings
from layersearch.search.scheduling import Dispatcher, Report, Track, finish_of, training_of
from layersearch.search.store import Store
from layersearch.search.store_checkpoints import Checkpoints
from layersearch.spaces.contracts import ControlledSpace, Space, Stage

__all__ = ["Finishing"]


class Finishing:
    """The phases after the search; each begins where the store says it was left.

    Every phase runs a set of tracks, each candidate through its stages. Seeds of re-rank and test depend on the stage
    alone, so that candidates are compared under the same ones.

    Args:
        on_phase: called with the name of a phase when it begins.
        on_report: called after a result was recorded, with candidates through the phase and all of them.
    """

    def __init__(
        self,
        space: Space,
        store: Store,
        dispatcher: Dispatcher,
        checkpoints: Checkpoints,
        settings: RunSettings,
        on_phase: Callable[[str], None],
        on_report: Callable[[Report, int, int], None],
    ) -> None:
        self._space = space
        self._store = store
        self._dispatcher = dispatcher
        self._checkpoints = checkpoints
        self._seeds = Seeds(settings.seed)
        self._settings = settings
        self._on_phase = on_phase
        self._on_report = on_report

    def run(self, interrupted: Callable[[], bool]) -> bool:
        """True when all is done; false when ``interrupted``, with everything that was running recorded."""
        self._begin("baselines")
        if not self._baselines(interrupted):
            return False
        order = ranked(self._store.evaluated(), self._space.objectives)
        top, baselines = order[: self._settings.rerank_top], self._store.baselines()
        self._begin("rerank", rerank=top)
        candidates = [self._store.candidate(n) for n in top] + baselines
        if not self._through(candidates, self._space.rerank_stages, interrupted):
            return False
        chosen = winner(order, {n: self._store.rerank_value(n) for n in top})
        tested = [] if chosen is None else [chosen]
        candidates = [self._store.candidate(n) for n in tested] + baselines
        # With no re-rank the winner has not been trained for the test yet.
        if not self._through(candidates, self._space.rerank_stages, interrupted):
            return False
        if chosen is not None and isinstance(self._space, ControlledSpace):
            if not self._controls(self._space, chosen, interrupted):
                return False
            baselines = self._store.baselines()
            candidates = [self._store.candidate(n) for n in tested] + baselines
        self._begin("test", winner=chosen)
        if not self._through(candidates, self._space.test_stages, interrupted):
            return False
        measured = [*top, *tested, *(b.number for b in baselines)]
        self._checkpoints.remove(self._store.release([*measured, *self._store.stopped()]))
        self._store.set_meta(phase="done", state="finished")
        return True

    def _begin(self, phase: str, **facts: object) -> None:
        self._store.set_meta(phase=phase, **facts)
        self._on_phase(phase)

    def _baselines(self, interrupted: Callable[[], bool]) -> bool:
        if not self._store.baselines():
            self._store.asked(
                [
                    Candidate(-1 - i, None, "baseline", self._space.to_json(genome), known_as=name, name=name)
                    for i, (name, genome) in enumerate(self._settings.baselines_of(self._space).items())
                ]
            )

        return self._open_baselines(interrupted)

    def _open_baselines(self, interrupted: Callable[[], bool]) -> bool:
        """Takes baselines that were asked for through the stages of the search."""

        def settle(track: Track) -> Finish | None:
            return finish_of(track, self._space.objectives)

        open_ones = [b for b in self._store.baselines() if b.state == "in_flight"]
        return self._through(open_ones, self._space.stages, interrupted, settle)

    def _controls(self, space: ControlledSpace, chosen: int, interrupted: Callable[[], bool]) -> bool:
        """Baselines made for the winner, as the re-rank measured it; asked once per winner."""
        candidate = self._store.candidate(chosen)
        there = self._store.baselines()
        suffix = f" of #{chosen}"
        if not any((b.name or "").endswith(suffix) for b in there):
            results, stages = self._store.results(chosen), [s.id for s in space.rerank_stages]
            of_rerank = spread(results, stages, "metrics") | spread(results, stages)
            measured = dict(candidate.fitness) | self._store.metrics(chosen)
            measured |= {name: value["mean"] for name, value in of_rerank.items()}
            made = self._settings.chosen(space.controls(space.from_json(candidate.genome), measured))
            self._store.asked(
                [
                    Candidate(
                        -1 - len(there) - i, None, "baseline", space.to_json(genome), known_as=name, name=name + suffix
                    )
                    for i, (name, genome) in enumerate(made.items())
                ]
            )
        return self._open_baselines(interrupted) and self._through(
            self._store.baselines(), space.rerank_stages, interrupted
        )

    def _through(
        self,
        candidates: Sequence[Candidate],
        stages: Sequence[Stage],
        interrupted: Callable[[], bool],
        settle: Callable[[Track], Finish | None] = lambda track: None,
    ) -> bool:
        tracks = [self._track(i, candidate, stages, settle) for i, candidate in enumerate(candidates)]
        mine = {track.candidate for track in tracks}
        for track in tracks:
            self._dispatcher.add(track)
        while not interrupted() and (open_tracks := sum(t.next_stage() is not None for t in tracks)):
            self._dispatcher.dispatch()
            for report in self._dispatcher.collect():
                if report.track.candidate in mine:
                    open_tracks -= report.track.next_stage() is None
                    self._on_report(report, len(tracks) - open_tracks, len(tracks))
        while interrupted() and self._dispatcher.running:
            self._dispatcher.collect()
        return not interrupted()

    def _track(
        self, order: int, candidate: Candidate, stages: Sequence[Stage], settle: Callable[[Track], Finish | None]
    ) -> Track:
        done = {result.stage: result for result in self._store.results(candidate.number)}

        def seed(stage: str) -> int:
            stage = training_of(stage, self._all_stages)
            kind = self._kinds.get(stage)
            if kind is not None:
                return self._seeds.derive(kind, stage)
            if candidate.slot is None:
                return self._seeds.derive("baseline", candidate.name or "", stage)
            return self._seeds.derive("stage", candidate.slot, stage)

        return Track(candidate.number, order, candidate.genome, stages, seed, settle, done)

    @property
    def _all_stages(self) -> tuple[Stage, ...]:
        return (*self._space.stages, *self._space.rerank_stages, *self._space.test_stages)

    @property
    def _kinds(self) -> dict[str, str]:
        rerank = {stage.id: "rerank" for stage in self._space.rerank_stages}
        return rerank | {stage.id: "test" for stage in self._space.test_stages}

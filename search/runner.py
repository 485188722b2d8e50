"""Runs a search from its first proposal to its winner, and goes on with one that was interrupted."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from layersearch.search.counts import Counts
from layersearch.search.executors.base import SpaceSpec
from layersearch.search.run_settings import RunSettings

__all__ = ["Phase", "RunEvent", "RunSettings", "Runner"]

Phase: TypeAlias = Literal["search", "baselines", "rerank", "test", "done"]


@dataclass(frozen=True)
class RunEvent:
    """Something to show. ``counts`` is the runner's own object: read it, do not keep it.

    Args:
        kind: ``start`` (or resume), ``phase`` begins, ``asked`` a slot, ``result`` of one stage, ``interrupt`` asked
            for (running stages are being finished).
        elapsed_s: of the search, over all resumes.
        candidate, stage, state, fitness: of a result: number, stage id, state of its outcome, and what it measured.
        finished: state of the candidate if that was its last stage in this phase.
        done, total: candidates of a phase after the search that are through it, and all of them.
    """

    kind: Literal["start", "phase", "asked", "result", "interrupt"]
    phase: Phase
    counts: Counts
    elapsed_s: float
    candidate: int | None = None
    stage: str | None = None
    state: str | None = None
    finished: str | None = None
    done: int = 0
    total: int = 0


class Runner:
    """One run in its folder. Makes the store if there is none, else resumes from it.

    Args:
        run_dir: folder of the run; must exist.
        space_spec: how the space is built, here and in workers.
        settings: of the run; must agree with what is recorded, but ``evaluations`` and ``minutes`` may be raised.
        on_event: called in this thread for everything worth showing.
    Raises: StoreError, RecipeError, DataError (nothing was run); from ``run`` also RunError (resumable).
    """

    def __init__(
        self,
        run_dir: Path,
        space_spec: SpaceSpec,
        settings: RunSettings,
        on_event: Callable[[RunEvent], None] | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.space_spec = space_spec
        self.settings = settings
        self.on_event = on_event

    def run(self) -> Literal["finished", "interrupted"]:
        """Runs until the end, or until Ctrl-C (once: running stages are finished; twice: at once)."""
        raise NotImplementedError

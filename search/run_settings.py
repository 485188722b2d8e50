"""What a runner has to be told, checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from layersearch.errors import RecipeError, StoreError
from layersearch.primitives.registry import unknown_name
from layersearch.search.executors.base import Resources
from layersearch.search.schedulers.base import SCHEDULERS, Scheduler
from layersearch.spaces.contracts import ControlledSpace, Genome, JsonObject, Space

__all__ = ["BACKENDS", "ENDS", "RunSettings", "default_backend"]

BACKENDS = ("inline", "pool", "ray", "streams")
"""Names in ``EXECUTORS``, for those who must not import them."""

ENDS = ("evaluations", "minutes", "core_minutes")
"""What ends a search: one of them is given."""

_IDENTITY = (
    "driver", "driver_settings", "scheduler", "scheduler_settings", "population", "seed", "deterministic", "lookahead",
    "baselines",
)  # fmt: skip


def default_backend(workers: int, device: str) -> str:
    """``inline`` for one worker; for more, ``streams`` on a GPU and ``pool`` elsewhere."""
    if workers == 1:
        return "inline"
    return "streams" if device.startswith("cuda") else "pool"


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run.

    Args:
        evaluations: the search ends when this many candidates passed the last stage.
        minutes: the search ends after this long, summed over resumes.
        core_minutes: the search ends once its stages have used this much CPU time: equal budgets on a busy machine.
            One of the three must be given.
        population: candidates the driver keeps.
        driver, driver_settings: name in ``DRIVERS`` and its own knobs.
        scheduler, scheduler_settings: name in ``SCHEDULERS`` and its own knobs.
        backend, workers, device: name in ``EXECUTORS``, number of processes or threads, ``cpu`` or ``cuda[:i]``.
        address, gpus_per_worker, cpus_per_worker: of the backend ray, see ``Resources``.
        seed: of everything random.
        deterministic: results do not depend on the number of workers; by default for the inline backend.
        lookahead: deterministic only: slot k is asked when slots up to k - lookahead are told.
        rerank_top: how many of the best are measured again after the search.
        baselines: names of those that are trained, of the space's baselines and controls; all of them if not given.
    Raises: RecipeError with one sentence.
    """

    evaluations: int | None = None
    minutes: float | None = None
    core_minutes: float | None = None
    population: int = 16
    driver: str = "evolution"
    driver_settings: Mapping[str, float | str] = field(default_factory=dict)
    scheduler: str = "straight"
    scheduler_settings: Mapping[str, float] = field(default_factory=dict)
    backend: str = "inline"
    workers: int = 1
    seed: int = 0
    deterministic: bool | None = None
    lookahead: int | None = None
    rerank_top: int = 5
    baselines: Sequence[str] | None = None
    device: str = "cpu"
    address: str | None = None
    gpus_per_worker: float | None = None
    cpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in ENDS):
            raise RecipeError(f"a run must have an end, got none of {', '.join(ENDS)}; give one of them")
        for name in ("evaluations", "population", "workers", "lookahead"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise RecipeError(f"{name} must be a whole number ≥ 1, got {value!r}; change it")
        for name in ("minutes", "core_minutes"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RecipeError(f"{name} must be finite and > 0, got {value!r}; change it")
        if self.rerank_top < 0:
            raise RecipeError(f"rerank_top must be ≥ 0, got {self.rerank_top!r}; change it")
        self._check_resources()

    def _check_resources(self) -> None:
        cpus, gpus = self.cpus_per_worker, self.gpus_per_worker
        if cpus is not None and not (math.isfinite(cpus) and cpus > 0):
            raise RecipeError(f"cpus_per_worker must be finite and > 0, got {cpus!r}; change it")
        if gpus is not None and not (0 <= gpus < 1 or (math.isfinite(gpus) and gpus == int(gpus) and gpus >= 1)):
            raise RecipeError(f"gpus_per_worker must be in [0, 1] or a whole number above, got {gpus!r}; change it")
        for name in ("address", "gpus_per_worker", "cpus_per_worker"):
            if self.backend != "ray" and getattr(self, name) is not None:
                raise RecipeError(f"{name} must be given with the backend ray, got the backend {self.backend}; drop it")

    @property
    def resources(self) -> Resources:
        """Where the workers run, and what each takes."""
        return Resources(self.address, self.gpus_per_worker, self.cpus_per_worker)

    def resolved(self, noisy: Sequence[str] = ()) -> "RunSettings":
        """With the defaults that depend on other settings filled in.

        Args:
            noisy: objectives that come out different each time.
        Raises: RecipeError if such a run is to be deterministic.
        """
        if noisy and self.deterministic:
            raise RecipeError(
                f"deterministic must be left out with the objective {noisy[0]}, which comes out different each time; "
                "drop one of them"
            )
        reproducible = self.backend == "inline" and not noisy
        deterministic = reproducible if self.deterministic is None else self.deterministic
        lookahead = max(2, min(32, self.population // 4)) if self.lookahead is None else self.lookahead
        return replace(self, deterministic=deterministic, lookahead=lookahead)

    def to_json(self) -> JsonObject:
        knobs = {name: dict(getattr(self, name)) for name in ("driver_settings", "scheduler_settings")}
        named = {"baselines": None if self.baselines is None else list(self.baselines)}
        return {f.name: getattr(self, f.name) for f in fields(self)} | knobs | named

    def make_scheduler(self, space: Space) -> Scheduler:
        """Raises: UnknownNameError, RecipeError."""
        return SCHEDULERS[self.scheduler].make(space.stages, space.objectives, self.scheduler_settings)

    def baselines_of(self, space: Space) -> dict[str, Genome]:
        """The baselines that are trained, by name. Raises: UnknownNameError for one that the run has not."""
        found = space.baselines()
        controls = space.control_names if isinstance(space, ControlledSpace) else ()
        known = list(dict.fromkeys([*found, *controls]))
        for name in self.baselines or ():
            if name not in known:
                raise unknown_name("baseline", name, known)
        return self.chosen(found)

    def chosen(self, found: Mapping[str, Genome]) -> dict[str, Genome]:
        """Those of some baselines that are trained."""
        return {name: genome for name, genome in found.items() if self.baselines is None or name in self.baselines}

    def resuming(self, recorded: Mapping[str, Any]) -> "RunSettings":
        """These settings for going on with a run that was begun with ``recorded``; what is left open is taken from it.

        Raises: StoreError if one that must not change has changed.
        """
        opened = {name: recorded[name] for name in ("deterministic", "lookahead") if getattr(self, name) is None}
        settings = replace(self, **opened)
        mine = settings.to_json()
        # Older stores name none of these.
        recorded = {"scheduler": "straight", "scheduler_settings": {}, "baselines": None, **recorded}
        for name in _IDENTITY:
            if mine[name] != recorded[name]:
                raise StoreError(
                    f"{name} of a run must not change, got {mine[name]!r} where {recorded[name]!r} is recorded; "
                    "resume with the recorded value or start another run"
                )
        return settings

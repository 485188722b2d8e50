"""What an executor is: it runs jobs somewhere and answers each exactly once."""

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from layersearch.errors import RecipeError, RunError
from layersearch.primitives.registry import Registry
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import Evaluator, Job, JsonObject, Outcome, Space

__all__ = [
    "AS_MANY_AS_FIT",
    "EXECUTORS",
    "MOST_DEATHS_AT_START",
    "ONE_THREAD",
    "Executor",
    "ExecutorFactory",
    "Resources",
    "SpaceSpec",
    "allowed_seconds",
    "died_at_start",
    "ending_seconds",
    "process_cpu_seconds",
    "run_timed",
    "settle_torch",
    "trust",
]

AS_MANY_AS_FIT = 1024
"""Number of workers that stands for no number: a cluster is filled, as large as it is at the time."""

MOST_DEATHS_AT_START = 3
"""Workers in a row that may die before they are ready; then the run ends with a sentence."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Environment of a worker: the engine's parallelism is in their number."""

_HARD_FACTOR = 1.5
_GRACE_S = 10.0

_trusted: list[str] = []


def trust(prefix: str) -> None:
    """Lets ``SpaceSpec`` import spaces from modules whose name starts with ``prefix``, in this process.

    A run folder names its space. Were it not for this list and the catalog of spaces, resuming a folder from elsewhere
    could call any function.
    """
    _trusted.append(prefix)


@dataclass(frozen=True)
class SpaceSpec:
    """How any process builds the space of a run.

    Args:
        entry: ``module:function``; the function makes the space from ``settings``.
        settings: plain data.
        preload: modules that worker processes share by being forked after their import.
    Raises: RecipeError if ``entry`` is malformed, or neither in ``SPACES`` nor of a trusted module.

    >>> SpaceSpec("os:system", {})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    layersearch.errors.RecipeError: a space is one of the catalog or comes from a module that was trusted, got...
    """

    entry: str
    settings: JsonObject = field(default_factory=dict)
    preload: tuple[str, ...] = ("torch",)

    def __post_init__(self) -> None:
        module, _, function = self.entry.partition(":")
        if not module or not function.isidentifier():
            raise RecipeError(f"a space is named as module:function, got '{self.entry}'; see search spaces")
        of_catalog = self.entry in {row.entry for row in SPACES.values()}
        if not of_catalog and not any(module.startswith(prefix) for prefix in _trusted):
            raise RecipeError(
                f"a space is one of the catalog or comes from a module that was trusted, got '{self.entry}'; "
                "call trust() for your own"
            )

    def build(self) -> Space:
        module, _, function = self.entry.partition(":")
        return cast(Space, getattr(importlib.import_module(module), function)(self.settings))


class Executor(Protocol):
    """Runs jobs. An error, a lost worker or an exceeded time limit gets one more try; then the outcome is *failed*."""

    @property
    def capacity(self) -> int:
        """How many jobs keep it busy; more wait their turn. It may change, as workers come and go."""
        ...

    def submit(self, job: Job) -> None: ...

    def results(self, timeout_s: float | None = None) -> list[tuple[Job, Outcome]]:
        """Waits for at least one result, at most ``timeout_s``; every submitted job comes back once.

        ``job.attempt`` says how many tries were lost before. Empty after the time, or with nothing to wait for.
        Raises: RunError when no worker can be started.
        """
        ...

    def close(self, now: bool = False) -> None:
        """Ends the workers; with ``now``, without waiting for what they run. May be called twice."""
        ...


@dataclass(frozen=True)
class Resources:
    """Where workers run, and what each of them takes; for backends that reach beyond this process and its children.

    Args:
        address: of a running cluster; ``None`` for one of this machine alone.
        gpus_per_worker: a share of one GPU, or a whole number of them; ``None`` for one if the device is ``cuda``.
        cpus_per_worker: as the cluster counts them.
    """

    address: str | None = None
    gpus_per_worker: float | None = None
    cpus_per_worker: float | None = None


class ExecutorFactory(Protocol):
    """From spec, the space already built from it, number of workers, device, and where they run."""

    def __call__(
        self, spec: SpaceSpec, space: Space, workers: int, device: str, resources: Resources | None = ..., /
    ) -> Executor: ...


EXECUTORS: Registry[ExecutorFactory] = Registry("backend", package="layersearch.search.executors")
"""By the name used in recipes. A new executor is a new file in this folder that adds its row."""


def allowed_seconds(limits: Mapping[str, float], job: Job) -> float | None:
    """Time limit of a job, if its stage has one."""
    return limits.get(job.stage)


def ending_seconds(limit_s: float) -> float:
    """After which a worker is ended that does not keep its time limit, as evaluators do unless they are stuck."""
    return _HARD_FACTOR * limit_s + _GRACE_S


def died_at_start(how: str) -> RunError:
    """That ``MOST_DEATHS_AT_START`` workers in a row did, the last one so."""
    return RunError(
        f"workers must start, but {MOST_DEATHS_AT_START} in a row died before they were ready ({how}); use fewer "
        "workers or free memory, then resume the run"
    )


def process_cpu_seconds() -> float:
    """CPU time of this process and of the compilers that it has run."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def run_timed(
    evaluator: Evaluator, job: Job, time_limit_s: float | None, cpu_seconds: Callable[[], float] = process_cpu_seconds
) -> tuple[Outcome, bool]:
    """Runs a job here. Returns its outcome, with the time it took, and whether it is worth another try.

    Another try is worth it after an exception, and when the evaluator gave up at the time limit.
    """
    wall, cpu = time.perf_counter(), cpu_seconds()
    again = False
    try:
        outcome = evaluator.run(job, time_limit_s)
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), "")
        outcome, again = Outcome("failed", f"{type(error).__name__}: {first_line}"), True
    duration_s = time.perf_counter() - wall
    if outcome.state == "failed" and time_limit_s is not None and duration_s >= time_limit_s:
        again = True
    return replace(outcome, duration_s=duration_s, cpu_s=cpu_seconds() - cpu), again


def settle_torch() -> None:
    """If torch is loaded, one thread for it in this process, and the same algorithms of cuDNN each time.

    The engine's parallelism is in its workers; left alone, cuDNN adds up the gradients of convolutions in any order.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.backends.cudnn.deterministic = True

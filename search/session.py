"""What ``search evolve``, ``tune``, ``resume`` and ``--replay`` do: all is checked, the folder made, then it runs."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layersearch.errors import BadInputError, RecipeError, StoreError
from layersearch.search.drivers.base import DRIVERS
from layersearch.search.environment import cores, environment
from layersearch.search.executors.base import AS_MANY_AS_FIT, SpaceSpec
from layersearch.search.live import Progress, watching
from layersearch.search.lock import RunLock
from layersearch.search.recipe import CLUSTER, MOST_DEFAULT_WORKERS, Recipe, parse_set
from layersearch.search.recipe_yaml import load_file, load_text
from layersearch.search.replay import Recording
from layersearch.search.run_settings import ENDS, RunSettings, default_backend
from layersearch.search.runner import RunEvent, Runner
from layersearch.search.runs import RECIPE_FILE, create_run, find_run, resume_command
from layersearch.search.show import print_show
from layersearch.search.store import Store
from layersearch.search.store_reader import StoreReader
from layersearch.search.store_schema import STORE_FILE

__all__ = ["INTERRUPTED", "evolve", "recipe_of", "replay", "resume"]

INTERRUPTED = 130
DATA_VARIABLE = "LAYERSEARCH_DATA"
_PLACES = ("workers", "backend", "device")
_OF_REPLAY = (*_PLACES, *CLUSTER, "data_dir", "run", "runs_dir")
"""What may be given with ``--replay``."""
_NUMBERS = (
    *ENDS, "population", "workers", "gpus_per_worker", "cpus_per_worker", "seed", "lookahead", "rerank_top"
)  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """A run that can begin or go on. ``done``: it ended before, and is not asked for more. ``replay``: as of Runner."""

    run_dir: Path
    spec: SpaceSpec
    settings: RunSettings
    done: bool = False
    replay: str | None = None


def recipe_of(given: Mapping[str, Any], file: Path | None, pairs: Sequence[str], seed_layers: Sequence[str]) -> Recipe:
    """The completed recipe from flags (``None``: not given) over the recipe ``file`` over the defaults.

    Raises: RecipeError, UnknownNameError.
    """
    values = {} if file is None else load_file(file)
    flags = {name: _plain(value) if name in _NUMBERS else value for name, value in given.items() if value is not None}
    if flags.keys() & set(ENDS):  # one end replaces the other
        values = {name: value for name, value in values.items() if name not in ENDS}
    if "backend" in flags or ("workers" in flags and values.get("backend") != "ray"):
        values = {name: value for name, value in values.items() if name not in ("workers", "backend", *CLUSTER)}
    if flags.get("driver", "optuna") != "optuna":
        values.pop("sampler", None)
    if "objectives" in flags:
        flags["objectives"] = _names(flags["objectives"])
    if "baselines" in flags:
        names = _names(flags["baselines"])
        flags["baselines"] = None if names == ["all"] else [] if names == ["none"] else names
    if seed_layers:
        names = [name for part in seed_layers for name in part.split(",") if name]
        flags["seed_layers"] = [] if names == ["none"] else names
    recipe = Recipe.parse({"data_dir": os.environ.get(DATA_VARIABLE) or None, **values, **flags})
    if pairs:
        recipe = Recipe.parse(recipe.model_dump() | {"set": recipe.set | parse_set(list(pairs))})
    if recipe.data_dir is not None:
        recipe = recipe.model_copy(update={"data_dir": str(Path(recipe.data_dir).expanduser().absolute())})
    if recipe.device == "auto" and recipe.gpus_per_worker is None:
        recipe = recipe.model_copy(update={"device": recipe.entry().device})
    # Which backend is best depends on the device.
    if recipe.backend is None and not recipe.on_cluster and recipe.workers != 1:
        recipe = recipe.model_copy(update={"device": _device(recipe.device)})
    return recipe.completed(cores())


def _names(text: str) -> list[str]:
    """Names in the text of a flag, by comma."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _plain(value: Any) -> Any:
    """The number in the text of a flag; any other text as it is, for the recipe to refuse."""
    try:
        return load_text(value, "a number") if isinstance(value, str) else value
    except RecipeError:
        return value


def evolve(recipe: Recipe, as_json: bool) -> int:
    """Begins a run. Returns the exit code; nothing is written before all that the user gave was checked."""
    entry = recipe.entry()
    spec = SpaceSpec(entry.entry, recipe.space_settings(), entry.preload)
    settings = recipe.run_settings()
    settings = replace(settings, device=_device_of(settings))
    recipe = recipe.model_copy(update={"device": settings.device})
    space = spec.build()
    DRIVERS[settings.driver](space, settings.population, settings.driver_settings)
    settings.make_scheduler(space)
    settings.baselines_of(space)
    data = space.load_data()
    if entry.plan is not None:
        spec = replace(spec, settings=entry.resolve(entry.plan)(spec.settings, data, recipe.device))
        recipe = recipe.with_plan(spec.settings)
    files = {RECIPE_FILE: recipe.to_yaml(), "environment.json": environment()}
    run_dir = create_run(Path(recipe.runs_dir), recipe.run, recipe.space, files)
    return _begin(_Plan(run_dir, spec, settings), as_json)


def _begin(plan: _Plan, as_json: bool) -> int:
    """Runs what was never run before."""
    try:
        return _run(plan, as_json)
    except BadInputError:  # a cluster that is not there, say: as if the run had never been asked for
        if not _has_begun(plan.run_dir):
            shutil.rmtree(plan.run_dir)
        raise


def replay(given: Mapping[str, Any], as_json: bool) -> int:
    """Begins a run that follows the recorded order of another one. Returns the exit code.

    Args:
        given: all flags of ``search evolve``, ``replay`` among them; those not given are ``None``.
    """
    flags = {n: _plain(value) if n in _NUMBERS else value for n, value in given.items() if value is not None}
    name = flags.pop("replay")
    del flags["as_json"]
    for other in flags:
        if other not in _OF_REPLAY:
            option = other.strip("_").replace("_", "-")
            raise RecipeError(f"a replay must have the recipe of its run, got --{option} as well; drop it")
    checked = Recipe.parse({"space": "", **flags})
    recorded_dir = find_run(Path(checked.runs_dir), name)
    plan = _replayed(recorded_dir, checked.data_dir)
    device = checked.device if "device" in flags else plan.settings.device
    settings = replace(plan.settings, device=device, **_moved(plan.settings, checked, device))
    settings = replace(settings, device=_device_of(settings))
    space = plan.spec.build()
    space.load_data()
    recipe = Recipe.parse(load_file(recorded_dir / RECIPE_FILE))
    recipe = recipe.model_copy(
        update={name: getattr(settings, name) for name in (*ENDS, *_PLACES, *CLUSTER)}
        | {"data_dir": plan.spec.settings.get("data_dir")}
    )
    files = {RECIPE_FILE: f"# search evolve --replay {name}\n{recipe.to_yaml()}", "environment.json": environment()}
    run_dir = create_run(Path(checked.runs_dir), checked.run, space.name, files)
    code = _begin(replace(plan, run_dir=run_dir, settings=settings), as_json)
    if code == 0:
        _say(f"{run_dir.name} has the candidates and outcomes of {name}")
    return code


def _replayed(recorded_dir: Path, data_dir: str | None) -> _Plan:
    """A run like the recorded one. Raises: StoreError if its search has not ended."""
    with StoreReader(recorded_dir) as reader:
        Recording(reader)
        recorded, space = reader.meta("run"), reader.meta("space")
    spec = _with_data(SpaceSpec(space["entry"], space["settings"]), data_dir)
    return _Plan(recorded_dir, spec, RunSettings(**recorded), replay=recorded_dir.name)


def resume(name: str, runs_dir: Path, given: Mapping[str, Any], as_json: bool) -> int:
    """Goes on with a run. Returns the exit code.

    Args:
        given: flags, ``None`` for those not given: at most one of ``ENDS``, the new end, in total; ``workers``,
            ``backend``, those of ``CLUSTER``, ``device``, ``data_dir``.
    """
    run_dir = find_run(runs_dir, name)
    flags = {name: _plain(value) if name in _NUMBERS else value for name, value in given.items() if value is not None}
    checked = Recipe.parse({"space": "", **flags})  # of the flags alone
    plan = _recorded(run_dir, checked.data_dir)
    device = checked.device if "device" in flags else plan.settings.device
    ends = {name: getattr(checked, name) for name in ENDS}
    extended = any(value is not None for value in ends.values())
    trains = not plan.done or extended
    if trains and _backend_of(plan.settings, checked) != "ray":
        device = _device(device)
    changes: dict[str, Any] = {"device": device} | (ends if extended else {})
    changes |= _moved(plan.settings, checked, device)
    settings = replace(plan.settings, **changes)
    if trains:
        settings = replace(settings, device=_device_of(settings))
    plan = replace(plan, settings=settings)
    return _run(plan, as_json)


def _backend_of(recorded: RunSettings, given: Recipe) -> str | None:
    """Where a run goes on; ``None`` if that depends on the number of its workers."""
    if given.backend is None and (given.on_cluster or recorded.backend == "ray"):
        return "ray"
    return given.backend or (recorded.backend if given.workers is None else None)


def _moved(recorded: RunSettings, given: Recipe, device: str) -> dict[str, Any]:
    """What changes in the settings of a run that goes on elsewhere, if that was given."""
    if given.workers is None and given.backend is None and not given.on_cluster:
        return {}
    backend = _backend_of(recorded, given)
    workers = given.workers
    if workers is None:
        workers = 1 if backend == "inline" else max(1, recorded.workers)
        if backend == "ray" and given.address and recorded.backend != "ray":
            workers = AS_MANY_AS_FIT
        if backend != "ray" and recorded.backend == "ray":
            workers = min(workers, cores(), MOST_DEFAULT_WORKERS)
    backend = backend or default_backend(workers, device)
    changes: dict[str, Any] = {"workers": workers, "backend": backend}
    for name in CLUSTER:
        value = getattr(given, name)
        changes[name] = getattr(recorded, name) if value is None and backend == "ray" else value
    return changes


def _has_begun(run_dir: Path) -> bool:
    if not (run_dir / STORE_FILE).exists():
        return False
    with StoreReader(run_dir) as store:
        return store.meta("run") is not None


def _recorded(run_dir: Path, data_dir: str | None) -> _Plan:
    """What is to be run, from the store if it has come that far, else from the recipe."""
    recorded = replays = None
    if (run_dir / STORE_FILE).exists():
        with RunLock(run_dir), Store(run_dir) as store:
            recorded, space, done = store.meta("run"), store.meta("space"), store.meta("phase") == "done"
            replays = store.meta("replay")
    if recorded is None and replays is not None:
        return replace(_replayed(find_run(run_dir.parent, replays), data_dir), run_dir=run_dir)
    if recorded is None:
        recipe = Recipe.parse(load_file(run_dir / RECIPE_FILE)).completed(cores())
        entry = recipe.entry()
        spec, settings, done = (
            SpaceSpec(entry.entry, recipe.space_settings(), entry.preload),
            recipe.run_settings(),
            False,
        )
    else:
        spec, settings = SpaceSpec(space["entry"], space["settings"]), RunSettings(**recorded)
    return _Plan(run_dir, _with_data(spec, data_dir), settings, done)


def _with_data(spec: SpaceSpec, data_dir: str | None) -> SpaceSpec:
    """The same space, its data elsewhere if that is given."""
    if data_dir is None or "data_dir" not in spec.settings:
        return spec
    return replace(spec, settings=spec.settings | {"data_dir": str(Path(data_dir).expanduser().absolute())})


def _run(plan: _Plan, as_json: bool) -> int:
    """Runs a plan under the eyes of the user, and shows what came of it."""
    progress = Progress(plan.run_dir, plan.spec, plan.settings)
    started = False

    def on_event(event: RunEvent) -> None:
        nonlocal started
        started = True
        progress.on_event(event)

    try:
        with watching(progress, as_json):
            end = Runner(plan.run_dir, plan.spec, plan.settings, on_event, plan.replay).run()
    except KeyboardInterrupt:  # before the runner listens to signals, or after it has ended
        end = "interrupted"
    interrupted = end == "interrupted"
    if not interrupted and not started:
        _say(
            f"{plan.run_dir.name} is finished and was not asked for more; "
            f"to go on, give a larger --evaluations, --minutes or --core-minutes"
        )
    try:
        print_show(plan.run_dir, top=10, as_json=as_json)
    except StoreError:
        if not interrupted:  # else it was so early that there is nothing to show
            raise
    if interrupted:
        _say(f"interrupted; go on with: {resume_command(plan.run_dir)}")
    return INTERRUPTED if interrupted else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _device_of(settings: RunSettings) -> str:
    """The device of a run. Raises: BadInputError if it is not there, or does not fit the GPUs asked for."""
    name, gpus = settings.device, settings.gpus_per_worker
    if settings.backend != "ray":
        return _device(name)
    fits = {"cuda"} if gpus else {"cpu", "cuda"} if gpus is None else {"cpu"}
    if name != "auto" and name not in fits:
        raise BadInputError(
            f"device must be auto or {' or '.join(sorted(fits))} with this backend and gpus_per_worker, got '{name}'; "
            "drop --device"
        )
    if gpus is not None:
        return "cuda" if gpus else "cpu"
    return name if settings.address is not None and name != "auto" else _device(name)


def _device(name: str) -> str:
    """The device that ``name`` stands for. Raises: BadInputError if it is not there."""
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    number = int(name.partition(":")[2] or 0)
    there = torch.cuda.device_count()
    if number >= there:
        raise BadInputError(
            f"device must be there, got '{name}' with {there} CUDA devices; use cpu, or see search doctor"
        )
    return name

"""Decides once per run how its layers are run: measures what the lowering ``auto`` leaves open."""

import itertools
import statistics
import time

import torch

from layersearch.errors import RecipeError
from layersearch.primitives.lowering import LOWERINGS, Lowering, build_layer
from layersearch.spaces.contracts import Arrays, JsonObject
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.evonorm.settings import AUTO, LoweringSettings, parse
from layersearch.spaces.tasks.images.training import ImageTask

__all__ = ["SWAP_STEPS", "planned", "swap_step_for"]

SWAP_STEPS = (8, 32, 128)
"""Steps at which a compiled lowering may take over. So few, that two runs on one machine come to the same plan."""

_TYPICAL = PUBLISHED["evonorm-b0"]
_TIMED_STEPS = 5
_TIMED_REPLAYS = 30


def planned(settings: JsonObject, data: Arrays, device: str) -> JsonObject:
    """The settings with a lowering in place of ``auto``.

    Raises: RecipeError if a lowering was named that cannot be used here.
    """
    parsed = parse(settings)
    kind = device.partition(":")[0]
    name = parsed.lowering.name
    if name != AUTO:
        row = LOWERINGS[name]
        why = row.why_unavailable() or (None if kind in row.devices else f"it does not run on {kind}")
        if why is not None:
            raise RecipeError(f"lowering must be usable on {kind}, got '{name}' ({why}); use {AUTO} or torch")
        return settings
    if kind != "cpu" and not torch.cuda.is_available():  # workers have GPUs, but this process cannot try them
        return settings | {"lowering": LoweringSettings(name="torch").model_dump(mode="json")}
    task = ImageTask(data, parsed.task, device)
    network = parsed.task.networks[0]
    best = LoweringSettings(name="torch")
    fastest = per_step = _seconds_per_step(task, network, "torch")
    for row in LOWERINGS.values():
        if row.build_seconds is None or kind not in row.devices or row.why_unavailable() is not None:
            continue
        compiled = _seconds_per_step(task, network, row.name)
        swap_step = swap_step_for(_build_seconds(row), per_step, compiled, parsed.task.fitness_steps)
        if swap_step is not None and compiled < fastest:
            fastest, best = compiled, LoweringSettings(name=row.name, swap_step=swap_step)
    return settings | {"lowering": best.model_dump(mode="json")}


def swap_step_for(build: float, torch: float, compiled: float, steps: int) -> int | None:
    """When the ``torch`` lowering has cost as much as a build would have spared; None if a build never pays.

    Args:
        build: core-seconds.
        torch, compiled: core-seconds per training step.
        steps: of a whole training.

    >>> swap_step_for(0.3, torch=0.05, compiled=0.02, steps=125)
    32
    """
    if compiled >= torch or build / (torch - compiled) > steps:
        return None
    return next((s for s in SWAP_STEPS if s >= build / (torch - compiled)), SWAP_STEPS[-1])


def _seconds_per_step(task: ImageTask, network: str, lowering: str) -> float:
    groups = task.settings.groups
    model = task.build(network, lambda c: build_layer(_TYPICAL, c, lowering=lowering, groups=groups), seed=0)
    clock = time.process_time if task.device.type == "cpu" else time.monotonic
    ends: list[float] = []
    graphed = task.make_graph is not None
    steps = 1 + (_TIMED_REPLAYS if graphed else _TIMED_STEPS)  # the first one pays for warming up
    task.train(model, until_step=steps, total_steps=steps, seed=0, on_step=lambda *_: ends.append(clock()))
    if graphed:  # then several steps are told of at once
        return (ends[-1] - ends[0]) / _TIMED_REPLAYS
    return statistics.median(later - sooner for sooner, later in itertools.pairwise(ends))


def _build_seconds(row: Lowering) -> float:
    assert row.build_seconds is not None
    return row.build_seconds(_TYPICAL)

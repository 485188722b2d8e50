"""Whole training steps of the anchor networks by each lowering, against nn.BatchNorm2d + nn.ReLU at the same sites.

python tests/bench/bench_step.py [ROUNDS]

Networks, batch and layout are those of the presets: smoke on the bundled digits, small on CIFAR-10 where
LAYERSEARCH_DATA has it.
"""

import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from common import environment, interleaved, show, table
from torch import nn
from torch.nn import functional as F

from layersearch.primitives.lowering import available, build_layer
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.tasks.images.data import load_images, to_arrays
from layersearch.spaces.tasks.images.presets import preset
from layersearch.spaces.tasks.images.training import ImageTask

__all__: list[str] = []

NATIVE = "nn.BatchNorm2d + nn.ReLU"
LAYERS = ("bn-relu", "evonorm-b0", "evonorm-s0")
LOWERINGS = tuple(name for name in ("torch", "c") if available()[name] is None)


def native(channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


def step(task: ImageTask, model: nn.Module) -> Callable[[], None]:
    """One step on one batch: forward, loss, backward, SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    x, y = task.batch(seed=0, step=0)
    model.train()

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


def measure(task: ImageTask, network: str, rounds: int) -> dict[str, float]:
    """Core-seconds per step by ``layer, lowering``."""
    groups = task.settings.groups
    runs = {NATIVE: step(task, task.build(network, native, seed=0))}
    for name in LAYERS:
        for lowering in LOWERINGS:
            model = task.build(
                network,
                lambda c, name=name, lowering=lowering: build_layer(  # type: ignore[misc]
                    PUBLISHED[name], c, lowering=lowering, groups=groups
                ),
                seed=0,
            )
            runs[f"{name}, {lowering}"] = step(task, model)
    for run in runs.values():
        run()
    return interleaved(runs, rounds)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    torch.set_num_threads(1)
    print(environment())
    root = os.environ.get("LAYERSEARCH_DATA")
    tasks = {"smoke": "digits"} | ({"small": "cifar10"} if root else {})
    against: dict[str, list[float]] = {}
    for name, data in tasks.items():
        settings = preset(name, data)
        task = ImageTask(to_arrays(load_images(data, Path(root) if root else None)), settings)
        rows: dict[str, dict[str, object]] = {}
        for network in settings.networks:
            for run, seconds in (times := measure(task, network, rounds)).items():
                ratio = seconds / times[NATIVE]
                rows.setdefault(run, {})[network] = f"{1e3 * seconds:.1f} ms × {ratio:.2f}"
                against.setdefault(f"{name}: {run}", []).append(ratio)
        table(f"{name} on {data}, batch {settings.batch}, median of {rounds} steps, × against {NATIVE}", rows)
    show(
        "geometric mean over the networks, × against the native pair",
        {name: statistics.geometric_mean(ratios) for name, ratios in against.items()},
    )
    show(
        "torch / c, geometric mean over the networks (least)",
        {
            f"{preset_name}: {layer}": f"{statistics.geometric_mean(r):.2f} ({min(r):.2f})"
            for preset_name in tasks
            for layer in LAYERS
            if "c" in LOWERINGS
            for r in [[a / b for a, b in zip(against[f"{preset_name}: {layer}, torch"],
                                             against[f"{preset_name}: {layer}, c"], strict=True)]]
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Training steps on a GPU: captured against launched one by one, and several trainings side by side against one."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_layers import GROUPS, NATIVE, lowerings
from gpu_timing import Bench, Row, first_line
from torch import nn

from layersearch.primitives.lowering import build_layer
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.tasks.images.batches import Images, drawn
from layersearch.spaces.tasks.images.course import ImageCourse
from layersearch.spaces.tasks.images.cuda_graph import CudaGraph, StepGraph
from layersearch.spaces.tasks.images.graphed import MOST_AHEAD, Feed, run_graphed
from layersearch.spaces.tasks.images.networks import NETWORKS
from layersearch.spaces.tasks.images.step import TrainingStep, make_optimizer

__all__ = ["graph_step", "streams"]

SIZES = {"resnet": (0.25, 0.15), "mobilenetv2": (0.25, 0.2), "efficientnet": (0.125, 0.2)}
"""Width and depth: those of the preset ``small``."""
K = 8


@dataclass(frozen=True)
class Recipe:
    """What is read of the settings of an image task; their class needs packages that this script does without."""

    batch: int = 64
    image_size: int = 32
    crop: int = 24
    padding: int = 2
    flip: bool = True
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    optimizer: str = "sgd"


class Rerun:
    """Stands in for a CUDA graph where there is no GPU."""

    def capture(self, run: Callable[[], None], warm_up: Callable[[], None]) -> None:
        warm_up()
        self._run = run

    def replay(self, times: int) -> None:
        for _ in range(times):
            self._run()

    def close(self) -> None: ...


class Trainings:
    """Trainings on random images, which cost what others do."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.recipe: Any = Recipe(batch=4, crop=8, image_size=8) if bench.tiny else Recipe()
        rng = np.random.default_rng(0)
        n, side = (64, 8) if bench.tiny else (10_000, 32)
        pixels = rng.integers(0, 256, (n, 3, side, side), dtype=np.uint8)
        self.rows = np.arange(n, dtype=np.int64)
        mean, std = torch.full((3,), 127.5), torch.full((3,), 74.0)
        self.images = Images(pixels, rng.integers(0, 10, n), mean, std, bench.device)
        self._drawing = threading.Lock()

    def model(self, network: str, layer: str) -> nn.Module:
        width, depth = (0.05, 0.125) if self.bench.tiny else SIZES[network]
        with self._drawing, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = NETWORKS[network](
                _maker(layer), in_channels=3, classes=10, image_size=self.recipe.crop, width=width, depth=depth
            )
        return model.to(self.bench.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]

    def feed(self, seed: int) -> Feed:
        return Feed(
            lambda step: drawn(self.rows, self.recipe, seed, step),
            lambda draw: self.images.drawn(draw, self.recipe.crop),
            lambda step: 0.01,
            self.recipe.batch,
        )

    def graphed(self, model: nn.Module, seed: int, course: ImageCourse) -> str:
        make: Callable[[], StepGraph] = (lambda: CudaGraph(self.bench.device)) if self.bench.on_gpu else Rerun
        step = TrainingStep(model, make_optimizer(model, self.recipe))
        return run_graphed(course, step, self.feed(seed), self.bench.device, make)

    def eager(self, model: nn.Module, seed: int, course: ImageCourse) -> None:
        step, feed = TrainingStep(model, make_optimizer(model, self.recipe)), self.feed(seed)
        while course.goes_on():
            x, y = feed.batch(feed.draw(course.step).to(self.bench.device))
            loss, n_right = step.look(x, y).tolist()
            if not course.accepts(loss):
                return
            step.learn(torch.full((), feed.rate(course.step), dtype=torch.float64, device=self.bench.device))
            course.takes(loss, n_right / feed.batch_size)


def _maker(layer: str) -> Callable[[int], nn.Module]:
    if layer == NATIVE:
        return lambda c: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU())
    name, lowering = layer.split(", ")
    return lambda c: build_layer(PUBLISHED[name], c, lowering=lowering, groups=GROUPS)


def graph_step(bench: Bench) -> list[Row]:
    """Milliseconds per training step of the three small networks (batch 64, crops of 24 pixels), host work included."""
    bench.note("goal: eager / graph at least 5")
    trainings = Trainings(bench)
    # The host looks after 1, 3, 7, 15, 31, 63, … steps: between two of these the time is that of whole looks.
    first, last = (3, 7) if bench.tiny else (MOST_AHEAD - 1, 5 * MOST_AHEAD - 1)
    rows: list[Row] = []
    for network in SIZES:
        for layer in (NATIVE, *(f"evonorm-b0, {name}" for name in lowerings(bench))):
            if bench.late():
                bench.note("stopped early: the time of this section was spent")
                return rows
            ms: dict[str, float] = {}
            losses: dict[str, list[float]] = {}
            why = ""
            for way in ("eager", "graph"):
                ends: list[float] = []

                def tick(*_: object, ends: list[float] = ends) -> None:
                    ends.append(time.perf_counter())

                course = ImageCourse(0, (), last, on_step=tick)
                model = trainings.model(network, layer)
                begun = time.perf_counter()
                if way == "graph":
                    why = trainings.graphed(model, 0, course)
                else:
                    trainings.eager(model, 0, course)
                losses[way] = course.losses
                if len(ends) == last:
                    ms[way] = 1e3 * (ends[-1] - ends[first - 1]) / (last - first)
                    ms[f"{way}, first step"] = 1e3 * (ends[0] - begun)
            bench.release()
            row: Row = {"network": network, "layer": layer, **{f"{way} ms": value for way, value in ms.items()}}
            if why:
                bench.note(f"{network}, {layer} was not captured: {why}")
            elif {"eager", "graph"} <= ms.keys():
                row["eager / graph"] = ms["eager"] / ms["graph"]
                row["same losses"] = "yes" if losses["eager"] == losses["graph"] else "no"
            rows.append(row)
    return rows


def streams(bench: Bench) -> list[Row]:
    """Trainings of 200 graphed steps, captures included: K threads with a stream each, against one after the other."""
    bench.note("goal: K = 8 at least 2 times the trainings per second of K = 1")
    trainings = Trainings(bench)
    steps = 4 if bench.tiny else 200
    rows: list[Row] = []
    for network in SIZES:
        layer = f"evonorm-b0, {lowerings(bench)[0]}"
        per_second: dict[int, float] = {}
        found: dict[int, dict[int, tuple[float, ...]]] = {}
        for k in (1, 2) if bench.tiny else (1, 2, 4, K):
            if bench.late():
                bench.note("stopped early: the time of this section was spent")
                return rows
            seconds, found[k] = _side_by_side(bench, trainings, network, layer, steps, k)
            per_second[k] = len(found[k]) / seconds
            bench.release()
            row: Row = {"network": network, "layer": layer, "K": k, "trainings/s": per_second[k]}
            row["× K = 1"] = per_second[k] / per_second[1]
            row["same losses"] = "yes" if all(found[k][s] == found[1].get(s, found[k][s]) for s in found[k]) else "no"
            rows.append(row)
    return rows


def _side_by_side(
    bench: Bench, trainings: Trainings, network: str, layer: str, steps: int, k: int
) -> tuple[float, dict[int, tuple[float, ...]]]:
    """Seconds for all seeds on ``k`` threads, and the losses of each seed."""
    seeds = list(range(2 if bench.tiny else K))
    found: dict[int, tuple[float, ...]] = {}
    errors: list[str] = []

    def work() -> None:
        with _own_stream(bench):
            while seeds:
                try:
                    seed = seeds.pop()
                except IndexError:
                    return
                course = ImageCourse(0, (), steps)
                try:
                    why = trainings.graphed(trainings.model(network, layer), seed, course)
                except Exception as error:
                    why = first_line(error)
                if why:
                    errors.append(why)
                found[seed] = tuple(course.losses)

    bench.synchronize()
    begun = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(k)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.synchronize()
    for why in set(errors):
        bench.note(f"{network}, K = {k}: {why}")
    return time.perf_counter() - begun, found


@contextmanager
def _own_stream(bench: Bench) -> Iterator[None]:
    if not bench.on_gpu:
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream(bench.device)):
        yield

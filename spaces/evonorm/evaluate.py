"""Runs the stages of the evonorm funnel in a worker: network probe, stability, quality, fitness, re-rank, test."""

import functools
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from layersearch.primitives.graph import Graph
from layersearch.primitives.graph_json import graph_from_json
from layersearch.primitives.lowering import LOWERINGS
from layersearch.primitives.lowering.swap import SwappableLayers
from layersearch.spaces.contracts import Arrays, Job, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import SAVE_EVERY_S, EndedError, allowed_seconds, check_finished, settled
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.evonorm.settings import EvonormSettings
from layersearch.spaces.evonorm.stability import largest_gradient_norm
from layersearch.spaces.fidelity import Place, place_of
from layersearch.spaces.tasks.images.checkpoint import step_of
from layersearch.spaces.tasks.images.training import ImageTask, OnStep, Part, TrainResult

__all__ = ["GRAPH_FAILED", "KERNEL_FAILED", "EvonormEvaluator"]

KERNEL_FAILED = "kernel_failed"
"""Metric that is 1 where a layer was run by the ``torch`` lowering because its kernels could not be built."""

GRAPH_FAILED = "graph_failed"
"""Metric that is 1 where a GPU ran a training step by step because it could not be captured as a CUDA graph."""

_SAVE = "save"  # why a training is cut by the clock; it goes on at once
_TIMED_STEPS = 3
_COST_SHAPES = {"cpu": (32, 64, 16, 16), "cuda": (128, 64, 32, 32)}
"""What costs are measured on, the same in every run: large enough that passes over memory are what counts."""


class EvonormEvaluator:
    """``layersearch.spaces.contracts.SavingEvaluator`` of the evonorm space: holds the data of one worker.

    Several threads may run jobs at the same time.

    Args:
        settings: of the run.
        data: arrays of the image set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    def __init__(self, settings: EvonormSettings, data: Arrays, device: str) -> None:
        self.settings = settings
        self.task = ImageTask(data, settings.task, device)
        self.chance = 1 / self.task.classes
        self.save: Callable[[bytes], None] | None = None
        self.save_every_s = SAVE_EVERY_S
        self._marks = _Marks()

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what BN-ReLU would take, at least 30 s."""
        task, funnel = self.settings.task, self.settings.funnel
        limits = {"cost": allowed_seconds(0.0)}
        for network in task.networks:
            narrow = self._seconds_per_step(network)
            wide = narrow * task.rerank_width**2
            evaluation = 2 * task.validation_cap / task.batch * narrow
            needed = {
                "probe": funnel.probe_steps * narrow,
                "stability": 4 * funnel.stability_steps * narrow,
                "quality": task.quality_steps * narrow + evaluation,
                "fitness": (task.fitness_steps - task.quality_steps) * narrow + evaluation,
                "rerank": task.rerank_steps * wide + 5 * evaluation,
                "test": 10 * evaluation,
            }
            for stage, seconds in needed.items():
                allowed = allowed_seconds(seconds)
                repeats = range(funnel.rerank_seeds) if stage in ("rerank", "test") else ()
                limits |= {f"{stage}:{network}": allowed, **{f"{stage}:{network}:{k}": allowed for k in repeats}}
            longest = max(limits[f"quality:{network}"], limits[f"fitness:{network}"])
            limits |= {f"fitness:{network}@{step}": longest for step in self.settings.rung_steps}
        return limits

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs ``job.stage``, ``name:network[:repeat][@rung]``. An exception of the candidate is a failed outcome."""
        self._marks.found = {}
        outcome = settled(functools.partial(self._run, job), time_limit_s)
        return replace(outcome, metrics={**outcome.metrics, **self._marks.found}) if self._marks.found else outcome

    def _run(self, job: Job, deadline: float | None) -> Outcome:
        graph = graph_from_json(job.genome)
        match place_of(job.stage):
            case Place("cost", rung=""):
                return self._cost(graph)
            case Place("probe", network, rung=""):
                return self._probe(graph, network, job, deadline)
            case Place("stability", network, rung=""):
                return self._stability(graph, network, job, deadline)
            case Place("quality", network, rung=""):
                return self._quality(graph, network, job, deadline)
            case Place("fitness", network, rung=step):
                return self._fitness(graph, network, job, deadline, int(step or self.settings.task.fitness_steps))
            case Place("rerank", network, rung=""):
                return self._rerank(graph, network, job, deadline)
            case Place("test", network, rung=""):
                return self._test(graph, network, job, deadline)
        raise ValueError(f"unknown stage '{job.stage}'; the evonorm space has no such stage")

    def _probe(self, graph: Graph, network: str, job: Job, deadline: float | None) -> Outcome:
        steps = self.settings.funnel.probe_steps
        model, result = self._train(graph, network, job, deadline, until_step=steps, total_steps=steps, evaluated=False)
        check_finished(result)
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            return Outcome("rejected", "weights are not finite", measured=float(result.steps))
        return Outcome("passed")

    def _stability(self, graph: Graph, network: str, job: Job, deadline: float | None) -> Outcome:
        funnel = self.settings.funnel
        x, y = self.task.fixed_batch(funnel.stability_batch)
        found = largest_gradient_norm(
            self._stability_network(graph, network, job.seed),
            x,
            y,
            steps=funnel.stability_steps,
            rate=funnel.stability_rate,
            limit=funnel.stability_limit,
            deadline=deadline,
        )
        if found.timed_out:
            return Outcome("failed", "the time limit was reached")
        if not math.isfinite(found.norm):
            return Outcome("rejected", "gradient norm is not finite", limit=funnel.stability_limit)
        if found.norm > funnel.stability_limit:
            return Outcome(
                "rejected", "gradient norm above the limit", measured=found.norm, limit=funnel.stability_limit
            )
        return Outcome("passed", metrics={f"gradient_norm.{network}": found.norm})

    def _cost(self, graph: Graph) -> Outcome:
        """Of the layer by the lowering of the plan, in training mode and channels-last, as it is trained."""
        layers = SwappableLayers(graph, self.settings.task.groups, self.settings.lowering.name)
        device = self.task.device
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(_COST_SHAPES[device.type], generator=generator).to(device, memory_format=torch.channels_last)
        layer = layers.make(x.shape[1]).to(device).train()
        reference = nn.Sequential(nn.BatchNorm2d(x.shape[1]), nn.ReLU()).to(device).train()
        if layers.failure is not None:
            self._marks.found[KERNEL_FAILED] = 1.0
        per_channel = sum(p.numel() for p in layer.parameters()) / x.shape[1]
        return Outcome("passed", fitness=measured_costs(self.settings.funnel.costs, layer, reference, x, per_channel))

    def _quality(self, graph: Graph, network: str, job: Job, deadline: float | None) -> Outcome:
        """The first steps of the fitness training, which goes on from this checkpoint."""
        steps = self.settings.task.quality_steps
        model, result = self._fitness_training(graph, network, job, deadline, steps)
        accuracy = self._accuracy(model, result, "validation", network)
        limit = self.settings.funnel.quality_chance * self.chance
        if accuracy < limit:
            return Outcome("rejected", f"accuracy below the limit after {steps} steps on {network}", accuracy, limit)
        fitness = {network: accuracy} if steps in self.settings.rung_steps else {}
        return Outcome(
            "passed", metrics={f"quality.{network}": accuracy}, fitness=fitness, checkpoint=result.checkpoint()
        )

    def _fitness(self, graph: Graph, network: str, job: Job, deadline: float | None, until_step: int) -> Outcome:
        """To the end of the training, or to a rung."""
        model, result = self._fitness_training(graph, network, job, deadline, until_step)
        accuracy = self._accuracy(model, result, "validation", network)
        metrics, fitness = {f"train.{network}": result.accuracy}, {network: accuracy}
        if until_step == self.settings.task.fitness_steps:
            return Outcome("passed", metrics=metrics, fitness=fitness)
        metrics = {f"{name}@{until_step}": value for name, value in metrics.items()}
        return Outcome("passed", metrics=metrics, fitness=fitness, checkpoint=result.checkpoint())

    def _fitness_training(
        self, graph: Graph, network: str, job: Job, deadline: float | None, until_step: int
    ) -> tuple[nn.Module, TrainResult]:
        """Raises: EndedError for a slow learner."""
        funnel = self.settings.funnel
        early = funnel.early_chance * self.chance
        model, result = self._train(
            graph,
            network,
            job,
            deadline,
            until_step=until_step,
            total_steps=self.settings.task.fitness_steps,
            on_step=lambda step, _, accuracy: "slow" if step == funnel.early_step and accuracy < early else None,
        )
        if result.status == "stopped":
            reason = f"training accuracy below the limit at step {funnel.early_step} on {network}"
            raise EndedError(Outcome("rejected", reason, measured=result.accuracy, limit=early))
        return model, result

    def _rerank(self, graph: Graph, network: str, job: Job, deadline: float | None) -> Outcome:
        """A wider network from scratch, evaluated on images that the search did not see."""
        steps, width = self.settings.task.rerank_steps, self.settings.task.rerank_width
        model, result = self._train(graph, network, job, deadline, until_step=steps, total_steps=steps, width=width)
        accuracy = self._accuracy(model, result, "holdout", network)
        return Outcome("passed", fitness={network: accuracy}, checkpoint=result.checkpoint())

    def _test(self, graph: Graph, network: str, job: Job, deadline: float | None) -> Outcome:
        """The re-ranked network on the published test set, read here alone."""
        steps, width = self.settings.task.rerank_steps, self.settings.task.rerank_width
        model, result = self._train(graph, network, job, deadline, until_step=steps, total_steps=steps, width=width)
        accuracy = self._accuracy(model, result, "test", network)
        return Outcome("passed", fitness={network: accuracy})

    def _train(
        self,
        graph: Graph,
        network: str,
        job: Job,
        deadline: float | None,
        *,
        until_step: int,
        total_steps: int,
        width: float = 1.0,
        on_step: OnStep | None = None,
        evaluated: bool = True,
    ) -> tuple[nn.Module, TrainResult]:
        """The network of a job, trained from its checkpoint by the lowerings of the plan; ``evaluated`` after that."""
        plan = self.settings.lowering
        first = network == self.settings.task.networks[0] and place_of(job.stage).name not in ("rerank", "test")
        swap_step = plan.swap_step if first else 0
        begin = step_of(job.checkpoint) if job.checkpoint is not None else 0
        layers = SwappableLayers(graph, self.settings.task.groups, "torch" if begin < swap_step else plan.name)
        model = self.task.build(network, layers.make, job.seed, width=width)
        changes = {}
        if begin < swap_step <= until_step:
            layers.prepare(plan.name)
            changes = {swap_step: lambda: layers.swap(model, plan.name)}
        saved_at = time.monotonic()

        def after(step: int, loss: float, accuracy: float) -> str | None:
            reason = None if on_step is None else on_step(step, loss, accuracy)
            # Not at a change: it would be left out, since it comes after the step that a reason ends.
            may_save = reason is None and self.save is not None and step not in changes
            return _SAVE if may_save and time.monotonic() - saved_at >= self.save_every_s else reason

        checkpoint = job.checkpoint
        while True:
            result = self.task.train(
                model,
                until_step=until_step,
                total_steps=total_steps,
                seed=job.seed,
                checkpoint=checkpoint,
                deadline=deadline,
                on_step=after,
                changes=changes,
            )
            if result.graph_failure:
                self._marks.found[GRAPH_FAILED] = 1.0
            if result.reason != _SAVE:
                break
            checkpoint, saved_at = result.checkpoint(), time.monotonic()
            if self.save is not None:
                self.save(checkpoint)
        if evaluated and result.status == "ok":
            layers.prepare_evaluation(model)
        if layers.failure is not None:
            self._marks.found[KERNEL_FAILED] = 1.0
        return model, result

    def _stability_network(self, graph: Graph, network: str, seed: int) -> nn.Module:
        """Not by a compiled lowering: those differentiate once, and leave the second time to ``torch``."""
        name = self.settings.lowering.name
        lowering = "torch" if LOWERINGS[name].build_seconds is not None else name
        layers = SwappableLayers(graph, self.settings.task.groups, lowering)
        return self.task.build(network, layers.make, seed).train()

    def _accuracy(self, model: nn.Module, result: TrainResult, part: Part, network: str) -> float:
        """Of a training that reached its goal. Raises: EndedError if it did not, or has no accuracy."""
        check_finished(result)
        cap = self.settings.task.validation_cap if part == "validation" else None
        accuracy = self.task.evaluate(model, part, cap).accuracy
        if accuracy is None:
            raise EndedError(Outcome("rejected", f"logits on {network} are not finite"))
        return accuracy

    def _seconds_per_step(self, network: str) -> float:
        layers = SwappableLayers(PUBLISHED["bn-relu"], self.settings.task.groups, "torch")
        model = self.task.build(network, layers.make, seed=0)
        ends: list[float] = []
        self.task.train(
            model,
            until_step=_TIMED_STEPS + 1,
            total_steps=_TIMED_STEPS + 1,
            seed=0,
            on_step=lambda *_: ends.append(time.monotonic()),
            graphed=False,
        )
        return (ends[-1] - ends[0]) / _TIMED_STEPS  # the first step pays for warming up


class _Marks(threading.local):
    """What a job that this thread runs has to say beside its outcome."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

"""Runs the stages of the skan funnel in a worker: quality, fitness, re-rank, test.

A stage trains through whatever full, selective and pruning steps lie before its goal; what was selected goes into the
outcome. Networks of the kan space, the baselines, are trained by the same task.
"""

import time
from collections.abc import Mapping
from typing import Any

import torch

from layersearch.errors import LayerSearchError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays, Job, JsonObject, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import EndedError, allowed_seconds, check_finished, failed
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.evaluate import cost_batch
from layersearch.spaces.kan.genome import KANGenome, make
from layersearch.spaces.kan.network import Network
from layersearch.spaces.kan.network import build as build_kan
from layersearch.spaces.skan.genome import Genome, SKANGenome, from_json
from layersearch.spaces.skan.network import selection_of
from layersearch.spaces.skan.published import PUBLISHED
from layersearch.spaces.skan.settings import SKANSettings
from layersearch.spaces.skan.training import chosen_of, train
from layersearch.spaces.tasks.regression.training import Evaluation, Part, RegressionTask, TrainResult

__all__ = ["SKANEvaluator", "Trained"]

_TIMED_STEPS = 5
Trained = tuple[Network, TrainResult, Evaluation]


class SKANEvaluator:
    """``layersearch.spaces.contracts.Evaluator`` of the skan space: holds the data of one worker.

    Args:
        settings: of the run.
        data: arrays of the regression set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    def __init__(self, settings: SKANSettings, data: Arrays, device: str) -> None:
        self.settings = settings
        self.task = RegressionTask(data, settings.task, device)

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what the first design by name would take unpruned, at least 30 s."""
        task = self.settings.task
        per_step = self._seconds_per_step()
        needed = {
            "quality": task.quality_steps * per_step,
            "fitness": (task.fitness_steps - task.quality_steps) * per_step,
        }
        for k in range(self.settings.funnel.rerank_seeds):
            needed |= {f"rerank:{k}": task.rerank_steps * per_step, f"test:{k}": 0.0}
        return {stage: allowed_seconds(seconds) for stage, seconds in needed.items()}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs ``job.stage``, ``name[:repeat]``. An exception of the candidate is a failed outcome."""
        deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
        try:
            return self._run(from_json(job.genome), job, deadline)
        except EndedError as ended:
            return ended.outcome
        except (LayerSearchError, RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            return failed(error)

    def _run(self, genome: Genome, job: Job, deadline: float | None) -> Outcome:
        task = self.settings.task
        match job.stage.partition(":")[0]:
            case "quality":
                return self._quality(genome, job, deadline)
            case "fitness":
                return self._fitness(genome, job, deadline)
            case "rerank" | "test" as kind:
                part: Part = "holdout" if kind == "rerank" else "test"
                network, result, found = self._measured(
                    genome, job, deadline, task.rerank_steps, task.rerank_steps, part
                )
                return Outcome(
                    "passed",
                    metrics=_in_units(found),
                    fitness=_error(found),
                    checkpoint=result.checkpoint() if kind == "rerank" else None,
                    selection=selection(genome, network),
                )
        raise ValueError(f"unknown stage '{job.stage}'; the skan space has no such stage")

    def _quality(self, genome: Genome, job: Job, deadline: float | None) -> Outcome:
        """The first steps of the fitness training, which goes on from this checkpoint."""
        task, limit = self.settings.task, self.settings.funnel.quality_rmse
        _, result, found = self._measured(genome, job, deadline, task.quality_steps, task.fitness_steps, "validation")
        value = _error(found)["rmse"]
        if value >= limit:
            return Outcome("rejected", f"error above the limit after {task.quality_steps} steps", value, limit)
        return Outcome("passed", metrics={"quality_rmse": value}, checkpoint=result.checkpoint())

    def _fitness(self, genome: Genome, job: Job, deadline: float | None) -> Outcome:
        steps = self.settings.task.fitness_steps
        network, _, found = self._measured(genome, job, deadline, steps, steps, "validation")
        trained = self.task.evaluate(network, "train")
        fitness = _error(found) | self._costs(genome, network)
        metrics = _in_units(found) | ({} if trained.normalised is None else {"train_rmse": trained.normalised})
        return Outcome("passed", metrics=metrics, fitness=fitness, selection=selection(genome, network))

    def _costs(self, genome: Genome, network: Network) -> dict[str, float]:
        """Those that are objectives, of the pruned network, against a SiLU network of the same widths."""
        task = self.task
        reference = self._kan(make(MLP, hidden=genome.hidden), 0)
        x = cost_batch(task)
        network.train()
        count = sum(p.numel() for p in network.parameters())
        return measured_costs(self.settings.funnel.objectives, network, reference, x, count)

    def _measured(
        self, genome: Genome, job: Job, deadline: float | None, until_step: int, total_steps: int, part: Part
    ) -> Trained:
        """The network of a job, trained from its checkpoint and evaluated.

        Raises: EndedError if the training did not reach its goal, or the network has no error.
        """
        network, result = self._trained(
            genome,
            until_step=until_step,
            total_steps=total_steps,
            seed=job.seed,
            checkpoint=job.checkpoint,
            deadline=deadline,
        )
        check_finished(result)
        found = self.task.evaluate(network, part)
        if found.normalised is None:
            raise EndedError(Outcome("rejected", "outputs are not finite"))
        return network, result, found

    def _trained(self, genome: Genome, *, seed: int, **how: Any) -> tuple[Network, TrainResult]:
        """The initial weights depend on ``seed`` alone."""
        task = self.task
        if isinstance(genome, SKANGenome):
            return train(task, genome, seed=seed, **how)
        network = self._kan(genome, seed)
        return network, task.train(network, seed=seed, **how)

    def _kan(self, genome: KANGenome, seed: int) -> Network:
        task = self.task
        generator = torch.Generator().manual_seed(Seeds(seed).derive("init"))
        return build_kan(
            genome, task.in_features, task.out_features, generator=generator, device=task.device, dtype=task.dtype
        )

    def _seconds_per_step(self) -> float:
        genome = next(iter(PUBLISHED.values())).with_widths(self.settings.network.reference)
        horizon = 100 * _TIMED_STEPS  # far from its pruning
        self._trained(genome, seed=0, until_step=1, total_steps=horizon)  # pays for warming up
        begin = time.monotonic()
        self._trained(genome, seed=0, until_step=_TIMED_STEPS, total_steps=horizon)
        return (time.monotonic() - begin) / _TIMED_STEPS


def selection(genome: Genome, network: Network) -> JsonObject | None:
    """``{"layers": …}``, per layer the name of each node's basis; None for a network that was not pruned."""
    chosen = chosen_of(network)
    if not isinstance(genome, SKANGenome) or chosen is None:
        return None
    return {"layers": [list(layer) for layer in selection_of(genome, chosen)]}


def _error(found: Evaluation) -> dict[str, float]:
    assert found.normalised is not None
    return {"rmse": found.normalised}


def _in_units(found: Evaluation) -> dict[str, float]:
    assert found.rmse is not None
    return {"rmse_in_units": found.rmse}

"""Runs the stages of the kan funnel in a worker: quality, fitness, re-rank, test."""

import time
from collections.abc import Mapping

import torch

from layersearch.errors import LayerSearchError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays, Job, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import EndedError, allowed_seconds, check_finished, failed
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.genome import KANGenome, from_json, make
from layersearch.spaces.kan.network import Network, build, count_parameters
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.kan.settings import KANSettings
from layersearch.spaces.tasks.regression.training import Evaluation, Part, RegressionTask, TrainResult

__all__ = ["KANEvaluator", "cost_batch"]

_TIMED_STEPS = 5
_COST_ROWS = 1024


class KANEvaluator:
    """``layersearch.spaces.contracts.Evaluator`` of the kan space: holds the data of one worker.

    Args:
        settings: of the run.
        data: arrays of the regression set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    def __init__(self, settings: KANSettings, data: Arrays, device: str) -> None:
        self.settings = settings
        self.task = RegressionTask(data, settings.task, device)

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what the first published design would take, at least 30 s."""
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
            return self._run(job, deadline)
        except EndedError as ended:
            return ended.outcome
        except (LayerSearchError, RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            return failed(error)

    def _run(self, job: Job, deadline: float | None) -> Outcome:
        genome = from_json(job.genome)
        task = self.settings.task
        match job.stage.partition(":")[0]:
            case "quality":
                return self._quality(genome, job, deadline)
            case "fitness":
                return self._fitness(genome, job, deadline)
            case "rerank":
                _, result, found = self._measured(
                    genome, job, deadline, task.rerank_steps, task.rerank_steps, "holdout"
                )
                return Outcome(
                    "passed", metrics=_in_units(found), fitness=_error(found), checkpoint=result.checkpoint()
                )
            case "test":
                _, _, found = self._measured(genome, job, deadline, task.rerank_steps, task.rerank_steps, "test")
                return Outcome("passed", metrics=_in_units(found), fitness=_error(found))
        raise ValueError(f"unknown stage '{job.stage}'; the kan space has no such stage")

    def _quality(self, genome: KANGenome, job: Job, deadline: float | None) -> Outcome:
        """The first steps of the fitness training, which goes on from this checkpoint."""
        task, limit = self.settings.task, self.settings.funnel.quality_rmse
        _, result, found = self._measured(genome, job, deadline, task.quality_steps, task.fitness_steps, "validation")
        value = _error(found)["rmse"]
        if value >= limit:
            return Outcome("rejected", f"error above the limit after {task.quality_steps} steps", value, limit)
        return Outcome("passed", metrics={"quality_rmse": value}, checkpoint=result.checkpoint())

    def _fitness(self, genome: KANGenome, job: Job, deadline: float | None) -> Outcome:
        steps = self.settings.task.fitness_steps
        network, _, found = self._measured(genome, job, deadline, steps, steps, "validation")
        trained = self.task.evaluate(network, "train")
        fitness = _error(found) | self._costs(genome, network)
        metrics = _in_units(found) | ({} if trained.normalised is None else {"train_rmse": trained.normalised})
        return Outcome("passed", metrics=metrics, fitness=fitness)

    def _costs(self, genome: KANGenome, network: Network) -> dict[str, float]:
        """Those that are objectives, against a SiLU network of the same widths."""
        task = self.task
        reference = self._network(make(MLP, hidden=genome.hidden), 0)
        network.train()
        count = count_parameters(genome, task.in_features, task.out_features)
        return measured_costs(self.settings.funnel.objectives, network, reference, cost_batch(task), count)

    def _measured(
        self, genome: KANGenome, job: Job, deadline: float | None, until_step: int, total_steps: int, part: Part
    ) -> tuple[Network, TrainResult, Evaluation]:
        """The network of a job, trained from its checkpoint and evaluated.

        Raises: EndedError if the training did not reach its goal, or the network has no error.
        """
        network = self._network(genome, job.seed)
        result = self.task.train(
            network,
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

    def _network(self, genome: KANGenome, seed: int) -> Network:
        """The initial weights depend on ``seed`` alone."""
        generator = torch.Generator().manual_seed(Seeds(seed).derive("init"))
        task = self.task
        return build(
            genome, task.in_features, task.out_features, generator=generator, device=task.device, dtype=task.dtype
        )

    def _seconds_per_step(self) -> float:
        genome = next(iter(PUBLISHED.values())).with_widths(self.settings.network.reference)
        network = self._network(genome, 0)
        self.task.train(network, until_step=1, total_steps=1, seed=0)  # pays for warming up
        begin = time.monotonic()
        self.task.train(network, until_step=_TIMED_STEPS, total_steps=_TIMED_STEPS, seed=0)
        return (time.monotonic() - begin) / _TIMED_STEPS


def cost_batch(task: RegressionTask) -> torch.Tensor:
    """Inputs that costs are measured on, the same in every run: ``[1024, in_features]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_COST_ROWS, task.in_features, generator=generator).to(task.device, task.dtype)


def _error(found: Evaluation) -> dict[str, float]:
    assert found.normalised is not None
    return {"rmse": found.normalised}


def _in_units(found: Evaluation) -> dict[str, float]:
    assert found.rmse is not None
    return {"rmse_in_units": found.rmse}

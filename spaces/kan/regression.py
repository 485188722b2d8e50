"""Runs a funnel on a regression task: quality, fitness, re-rank, test. What the evaluators of kan and skan share."""

import abc
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch

from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays, Job, JsonObject, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import EndedError, allowed_seconds, check_finished, settled
from layersearch.spaces.fidelity import Cut, Place, is_rung, place_of
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.genome import KANGenome, make
from layersearch.spaces.kan.network import Network, build
from layersearch.spaces.kan.settings import FunnelSettings
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.tasks.regression.training import Evaluation, Part, RegressionTask, TrainResult

__all__ = ["RegressionEvaluator"]

_TIMED_STEPS = 5
_FAR = 100 * _TIMED_STEPS
"""Horizon of the timed steps: what a training does late does not come in them."""
_COST_ROWS = 1024

Searched = TypeVar("Searched")


class RegressionEvaluator(abc.ABC, Generic[Searched]):
    """``layersearch.spaces.contracts.Evaluator`` of networks on one regression set: holds the data of one worker.

    At a rung the network is measured as it is: its error on the validation part by weights that the rest of the
    training would still change, at a learning rate that has not yet fallen to 0.

    Args:
        funnel, task: settings of the run.
        cuts: of the training of the search.
        data: arrays of the regression set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    space: ClassVar[str]
    has_early_costs: ClassVar[bool] = True
    """Whether what a network costs at a rung is what it will cost."""

    def __init__(
        self, funnel: FunnelSettings, task: RegressionSettings, cuts: Sequence[Cut], data: Arrays, device: str
    ) -> None:
        self.funnel = funnel
        self.cuts = cuts
        self.task = RegressionTask(data, task, device)

    @abc.abstractmethod
    def parsed(self, genome: JsonObject) -> Searched:
        """Raises: GenomeError."""

    @abc.abstractmethod
    def timed(self) -> Searched:
        """The design whose steps say how long a stage may take."""

    @abc.abstractmethod
    def trained(self, genome: Searched, *, seed: int, **how: Any) -> tuple[Network, TrainResult]:
        """The network after a training; ``how`` as of ``RegressionTask.train``. Its start depends on ``seed`` alone."""

    @abc.abstractmethod
    def hidden(self, genome: Searched) -> tuple[int, ...]:
        """Widths of the hidden layers, which the network that costs are measured against has, too."""

    def selection(self, genome: Searched, network: Network) -> JsonObject | None:
        """What was selected in the training."""
        return None

    def time_limits(self) -> Mapping[str, float]:
        """Seconds per stage id: ten times what the design ``timed`` would take, at least 30 s."""
        task = self.task.settings
        per_step = self._seconds_per_step()
        needed = {
            "quality": task.quality_steps * per_step,
            "fitness": (task.fitness_steps - task.quality_steps) * per_step,
        }
        needed = dict.fromkeys((cut.stage for cut in self.cuts), max(needed.values())) | needed
        for k in range(self.funnel.rerank_seeds):
            needed |= {f"rerank:{k}": task.rerank_steps * per_step, f"test:{k}": 0.0}
        return {stage: allowed_seconds(seconds) for stage, seconds in needed.items()}

    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        """Runs ``job.stage``, ``name[:repeat][@rung]``. An exception of the candidate is a failed outcome."""
        return settled(lambda deadline: self._run(job, deadline), time_limit_s)

    def kan(self, genome: KANGenome, seed: int) -> Network:
        """A network of the kan space. The initial weights depend on ``seed`` alone."""
        task = self.task
        generator = torch.Generator().manual_seed(Seeds(seed).derive("init"))
        return build(
            genome, task.in_features, task.out_features, generator=generator, device=task.device, dtype=task.dtype
        )

    def _run(self, job: Job, deadline: float | None) -> Outcome:
        genome, steps = self.parsed(job.genome), self.task.settings.rerank_steps
        match place_of(job.stage):
            case Place("quality", rung=""):
                return self._quality(genome, job, deadline)
            case Place("fitness", rung=""):
                return self._fitness(genome, job, deadline)
            case Place("fitness", rung=step):
                return self._rung(genome, job, deadline, int(step))
            case Place(("rerank" | "test") as kind, rung=""):
                part: Part = "holdout" if kind == "rerank" else "test"
                network, result, found = self._measured(genome, job, deadline, steps, steps, part)
                return Outcome(
                    "passed",
                    metrics=_in_units(found),
                    fitness=_error(found),
                    checkpoint=result.checkpoint() if kind == "rerank" else None,
                    selection=self.selection(genome, network),
                )
        raise ValueError(f"unknown stage '{job.stage}'; the {self.space} space has no such stage")

    def _quality(self, genome: Searched, job: Job, deadline: float | None) -> Outcome:
        """The first steps of the fitness training, which goes on from this checkpoint; a rung, if one is there."""
        task, limit = self.task.settings, self.funnel.quality_rmse
        network, result, found = self._measured(
            genome, job, deadline, task.quality_steps, task.fitness_steps, "validation"
        )
        value = _error(found)["rmse"]
        if value >= limit:
            return Outcome("rejected", f"error above the limit after {task.quality_steps} steps", value, limit)
        checkpoint = result.checkpoint()
        fitness = self._early(genome, network, found) if is_rung(job.stage, self.cuts) else {}
        return Outcome("passed", metrics={"quality_rmse": value}, fitness=fitness, checkpoint=checkpoint)

    def _rung(self, genome: Searched, job: Job, deadline: float | None, until_step: int) -> Outcome:
        steps = self.task.settings.fitness_steps
        network, result, found = self._measured(genome, job, deadline, until_step, steps, "validation")
        metrics = {f"{name}@{until_step}": value for name, value in _in_units(found).items()}
        checkpoint = result.checkpoint()
        return Outcome("passed", metrics=metrics, fitness=self._early(genome, network, found), checkpoint=checkpoint)

    def _early(self, genome: Searched, network: Network, found: Evaluation) -> dict[str, float]:
        """After the checkpoint was made: where costs are measured, running ranges of inputs move."""
        return _error(found) | (self._costs(genome, network) if self.has_early_costs else {})

    def _fitness(self, genome: Searched, job: Job, deadline: float | None) -> Outcome:
        steps = self.task.settings.fitness_steps
        network, _, found = self._measured(genome, job, deadline, steps, steps, "validation")
        trained = self.task.evaluate(network, "train")
        fitness = _error(found) | self._costs(genome, network)
        metrics = _in_units(found) | ({} if trained.normalised is None else {"train_rmse": trained.normalised})
        return Outcome("passed", metrics=metrics, fitness=fitness, selection=self.selection(genome, network))

    def _costs(self, genome: Searched, network: Network) -> dict[str, float]:
        """Those that are objectives, of the trained network, against a SiLU network of the same widths."""
        task = self.task
        reference = self.kan(make(MLP, hidden=self.hidden(genome)), 0)
        generator = torch.Generator().manual_seed(0)  # inputs that are the same in every run
        x = torch.randn(_COST_ROWS, task.in_features, generator=generator).to(task.device, task.dtype)
        network.train()
        count = sum(p.numel() for p in network.parameters())
        return measured_costs(self.funnel.objectives, network, reference, x, count)

    def _measured(
        self, genome: Searched, job: Job, deadline: float | None, until_step: int, total_steps: int, part: Part
    ) -> tuple[Network, TrainResult, Evaluation]:
        """The network of a job, trained from its checkpoint and evaluated.

        Raises: EndedError if the training did not reach its goal, or the network has no error.
        """
        network, result = self.trained(
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

    def _seconds_per_step(self) -> float:
        self.trained(self.timed(), seed=0, until_step=1, total_steps=_FAR)  # pays for warming up
        begin = time.monotonic()
        self.trained(self.timed(), seed=0, until_step=_TIMED_STEPS, total_steps=_FAR)
        return (time.monotonic() - begin) / _TIMED_STEPS


def _error(found: Evaluation) -> dict[str, float]:
    assert found.normalised is not None
    return {"rmse": found.normalised}


def _in_units(found: Evaluation) -> dict[str, float]:
    assert found.rmse is not None
    return {"rmse_in_units": found.rmse}

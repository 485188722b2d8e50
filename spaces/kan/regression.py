"""Runs a funnel on a regression task. What the evaluators of kan and skan share there."""

import abc
import time
from collections.abc import Sequence
from typing import TypeVar

import torch

from layersearch.spaces.contracts import Arrays, Outcome
from layersearch.spaces.costs import measured_costs
from layersearch.spaces.ending import EndedError
from layersearch.spaces.fidelity import Cut
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.genome import KANGenome, make
from layersearch.spaces.kan.network import Network, build
from layersearch.spaces.kan.settings import FunnelSettings
from layersearch.spaces.kan.staged import Part, Score, StagedEvaluator, init_generator
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.tasks.regression.training import RegressionTask, TrainResult

__all__ = ["RegressionEvaluator"]

_TIMED_STEPS = 5
_FAR = 100 * _TIMED_STEPS
"""Horizon of the timed steps: what a training does late does not come in them."""
_COST_ROWS = 1024

Searched = TypeVar("Searched")


class RegressionEvaluator(StagedEvaluator[Searched, Network, TrainResult]):
    """``StagedEvaluator`` of networks on one regression set: holds the data of one worker.

    Args:
        funnel, task: settings of the run.
        cuts: of the training of the search.
        data: arrays of the regression set.
        device: ``cpu`` or ``cuda[:i]``.
    """

    objective = "rmse"

    def __init__(
        self, funnel: FunnelSettings, task: RegressionSettings, cuts: Sequence[Cut], data: Arrays, device: str
    ) -> None:
        super().__init__(task, cuts, funnel.rerank_seeds)
        self.funnel = funnel
        self.task = RegressionTask(data, task, device)

    @abc.abstractmethod
    def hidden(self, genome: Searched) -> tuple[int, ...]:
        """Widths of the hidden layers, which the network that costs are measured against has, too."""

    def kan(self, genome: KANGenome, seed: int) -> Network:
        """A network of the kan space. The initial weights depend on ``seed`` alone."""
        task, generator = self.task, init_generator(seed)
        return build(
            genome, task.in_features, task.out_features, generator=generator, device=task.device, dtype=task.dtype
        )

    def evaluated(self, model: Network, part: Part) -> Score:
        found = self.task.evaluate(model, part)
        if found.normalised is None or found.rmse is None:
            raise EndedError(Outcome("rejected", "outputs are not finite"))
        return Score(found.normalised, {"rmse_in_units": found.rmse})

    def objection(self, value: float) -> tuple[str, float] | None:
        limit = self.funnel.quality_rmse
        return ("error above the limit", limit) if value >= limit else None

    def of_training(self, model: Network, result: TrainResult, is_over: bool) -> dict[str, float]:
        """``train_rmse``, at the end alone."""
        error = self.task.evaluate(model, "train").normalised if is_over else None
        return {} if error is None else {"train_rmse": error}

    def costs(self, genome: Searched, model: Network) -> dict[str, float]:
        """Against a SiLU network of the same widths."""
        task = self.task
        reference = self.kan(make(MLP, hidden=self.hidden(genome)), 0)
        generator = torch.Generator().manual_seed(0)  # inputs that are the same in every run
        x = torch.randn(_COST_ROWS, task.in_features, generator=generator).to(task.device, task.dtype)
        count = sum(p.numel() for p in model.parameters())
        return measured_costs(self.funnel.objectives, model.train(), reference, x, count)

    def seconds_per_step(self, genome: Searched) -> float:
        self.trained(genome, seed=0, until_step=1, total_steps=_FAR)  # pays for warming up
        begin = time.monotonic()
        self.trained(genome, seed=0, until_step=_TIMED_STEPS, total_steps=_FAR)
        return (time.monotonic() - begin) / _TIMED_STEPS

"""Trains and evaluates networks on one target: the regression task of a worker.

A training depends on its seed, settings and horizon alone, never on the rungs it is cut into: 0 -> 100 -> 300 equals
0 -> 300 bit for bit on the same hardware.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.errors import DataError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.checkpoint import Progress, check_same_training
from layersearch.spaces.tasks.course import Course, TrainResult
from layersearch.spaces.tasks.decay import undecayed
from layersearch.spaces.tasks.regression.checkpoint import read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.regression.data import Floats, from_arrays
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.tasks.regression.splits import split

__all__ = ["Evaluation", "Part", "RegressionTask", "TrainResult", "optimizer_of"]

Part: TypeAlias = Literal["train", "validation", "holdout", "test"]


@dataclass(frozen=True)
class Evaluation:
    """Root mean square error on a part.

    Args:
        rmse: in units of the target; ``None`` when an output was not finite: such a model has no error.
        normalised: in standard deviations of the target on the search-train part: 1 is what its mean achieves.
        n_rows: number of points.
    """

    rmse: float | None
    normalised: float | None
    n_rows: int


class RegressionTask:
    """Data, parts and recipe of one run, held once per worker.

    Inputs of a known domain are mapped to [-1, 1]; columns of tables, and the target always, are standardised by the
    search-train part alone. Networks take ``[B, in_features]`` and give ``[B, 1]``.

    Args:
        arrays: of ``to_arrays``.
        settings: the recipe.
        device: where points lie and networks train.
    Raises: DataError if the arrays do not fit the settings.
    """

    out_features = 1

    def __init__(self, arrays: Arrays, settings: RegressionSettings, device: str | torch.device = "cpu") -> None:
        data = from_arrays(arrays)
        if data.name != settings.data:
            raise DataError(f"the arrays must be those of '{settings.data}', got '{data.name}'; load that data set")
        self.settings = settings
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self.in_features = int(data.train_x.shape[1])
        self.parts = split(
            len(data.train_y),
            len(data.test_y),
            validation=settings.validation_fraction,
            holdout=settings.holdout_fraction,
            seed=settings.split_seed,
        )
        known = data.train_x[self.parts.train]
        if len(data.domain):
            middle, half = data.domain.mean(0), (data.domain[1] - data.domain[0]) / 2
        else:
            middle, half = known.mean(0), known.std(0)
        half = np.where(half > 1e-12 * (1 + np.abs(middle)), half, 1.0)  # a constant column is left unscaled
        self.input_shift: Floats = middle
        self.input_scale: Floats = half
        target = data.train_y[self.parts.train]
        self.target_mean, self.target_std = float(target.mean()), float(target.std())
        if self.target_std <= 1e-12 * (1 + abs(self.target_mean)):
            raise DataError(
                f"the target of '{data.name}' must vary, and is {self.target_mean:g} throughout; choose another"
            )
        pool = (data.train_x - middle) / half, (data.train_y - self.target_mean) / self.target_std
        test = (data.test_x - middle) / half, (data.test_y - self.target_mean) / self.target_std
        self._points: dict[Part, tuple[Tensor, Tensor]] = {
            "train": self._on_device(*pool, self.parts.train),
            "validation": self._on_device(*pool, self.parts.validation),
            "holdout": self._on_device(*pool, self.parts.holdout),
            "test": self._on_device(*test, self.parts.test),
        }

    def _on_device(self, x: Floats, y: Floats, rows: Any) -> tuple[Tensor, Tensor]:
        return (
            torch.tensor(x[rows], dtype=self.dtype, device=self.device),
            torch.tensor(y[rows, None], dtype=self.dtype, device=self.device),
        )

    def points(self, part: Part) -> tuple[Tensor, Tensor]:
        """Inputs and standardised targets of a part: ``[N, I]``, ``[N, 1]``."""
        return self._points[part]

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and standardised targets of ``step`` (from 0): ``[B, I]``, ``[B, 1]``; epochs in seeded order."""
        x, y = self._points["train"]
        size = self.settings.batch
        if size == 0 or size >= len(x):
            return x, y
        epoch, i = divmod(step, len(x) // size)
        rows = _order(Seeds(seed).derive("order", epoch), len(x))[i * size : (i + 1) * size].to(self.device)
        return x[rows], y[rows]

    def train(
        self,
        model: nn.Module,
        *,
        until_step: int,
        total_steps: int,
        seed: int,
        checkpoint: bytes | None = None,
        deadline: float | None = None,
        before_step: Callable[[int], None] | None = None,
    ) -> TrainResult:
        """Minimises mean squared error of the standardised target, from the checkpoint (or step 0) to ``until_step``.

        Args:
            until_step, total_steps: goal of this call, and horizon of the learning rate.
            seed: of the order of the data.
            deadline: on the clock of ``time.monotonic``, seconds; looked at before each step.
            before_step: called with the number of steps done, for a model that changes with it.
        Returns: its ``losses`` are that error of the batch before each step: 1 is the variance of the target.
        Raises: StoreError if the checkpoint does not fit the model, the seed, the horizon or the settings.
        """
        if not 0 < until_step <= total_steps:
            raise ValueError(f"until_step must be in 1..total_steps = {total_steps}, got {until_step}")
        settings = self.settings
        optimizer = optimizer_of(model, settings)
        before = 0
        if checkpoint is not None:
            progress = read_checkpoint(checkpoint, model, optimizer)
            check_same_training(progress, total_steps, seed, settings.fingerprint())
            before = progress.step
        course = Course(before, until_step, deadline)
        model.train()
        while course.goes_on():
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate_at(course.step, total_steps)
            if before_step is not None:
                before_step(course.step)
            loss = _step(model, optimizer, *self.batch(seed, course.step))
            if not course.accepts(loss):
                break
            course.count(loss)
        now = Progress(course.step, total_steps, seed, settings.fingerprint())
        return TrainResult(
            course.step,
            course.status,
            course.reason,
            tuple(course.losses),
            lambda: write_checkpoint(model, optimizer, now),
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part) -> Evaluation:
        """Error in eval mode on a part, summed in float64."""
        x, y = self._points[part]
        was_training = model.training
        model.eval()
        squares = torch.zeros((), dtype=torch.float64, device=self.device)
        size = self.settings.eval_batch
        for some, target in zip(torch.split(x, size), torch.split(y, size), strict=True):
            squares += (model(some).double() - target.double()).square().sum()
        model.train(was_training)
        normalised = math.sqrt(float(squares) / len(x)) if math.isfinite(float(squares)) else None
        rmse = None if normalised is None else normalised * self.target_std
        return Evaluation(rmse, normalised, len(x))


def optimizer_of(model: nn.Module, settings: RegressionSettings) -> torch.optim.Optimizer:
    """A fresh one.

    ``adamw``: all weights decay but those that the model, or a part of it, names as ``undecayed``.
    ``lbfgs``: one iteration per step, its history kept over the steps.
    """
    parameters, rate = list(model.parameters()), settings.learning_rate
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=rate)
        case "adamw":
            return torch.optim.AdamW(_by_decay(model, settings.weight_decay), lr=rate)
        case "lbfgs":
            return torch.optim.LBFGS(parameters, lr=rate, max_iter=1, history_size=10, line_search_fn="strong_wolfe")


def _by_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of parameters, a new one wherever the decay changes.

    Parameters so keep their order, by which checkpoints tell them apart, and models that decay them all have one group.
    """
    exempt = undecayed(model)
    groups = itertools.groupby(model.named_parameters(), lambda named: named[0] in exempt)
    return [
        {"params": [parameter for _, parameter in group], "weight_decay": 0.0 if spared else weight_decay}
        for spared, group in groups
    ]


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """One update. Returns the loss before it; where that is not finite none is made, but by LBFGS."""

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.mse_loss(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        return optimizer.step(closure).item()  # type: ignore[no-untyped-call,no-any-return]
    value = closure().item()
    if math.isfinite(value):
        optimizer.step()
    return value


@functools.lru_cache(maxsize=2)
def _order(seed: int, n: int) -> Tensor:
    """A shuffle of n rows; kept for the epoch."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))

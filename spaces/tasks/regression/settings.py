"""All that defines a regression task, every value checked: a run is what its settings say, on any machine."""

import hashlib
import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from layersearch.spaces.tasks.functions import Sampling
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS
from layersearch.spaces.validation import checked

__all__ = ["RegressionSettings"]

_NOT_OF_TRAINING = {"eval_batch", "fitness_steps", "quality_steps", "rerank_steps"}


class RegressionSettings(BaseModel):
    """Settings of a regression task.

    Args:
        data: a name of ``REGRESSION_SETS``.
        split: which published split, from 0; functions have none.
        points, test_points, sample_seed: of functions (``Sampling``).
        validation_fraction, holdout_fraction: of the pool (of the published training part).
        split_seed: of the parts; equal for all candidates and runs to be compared.
        batch: training rows per step; 0 for all of them.
        optimizer: ``adam``, ``adamw`` (which alone decays weights) or ``lbfgs``, whose steps are iterations with a line
            search on all rows.
        schedule: of the learning rate, over the whole horizon of a training; constant with ``lbfgs``.
        quality_steps, fitness_steps, rerank_steps: horizon of each stage; quality is the beginning of fitness.
    Raises: pydantic's ValidationError; ``parse`` and ``replace`` raise RecipeError, in one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    data: str
    split: int = Field(default=0, ge=0)
    points: int = Field(default=2000, ge=10, le=10_000_000)
    test_points: int = Field(default=5000, ge=1, le=10_000_000)
    sample_seed: int = Field(default=0, ge=0, lt=2**63)
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    holdout_fraction: float = Field(default=0.2, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    batch: int = Field(default=0, ge=0, le=10_000_000)
    eval_batch: int = Field(default=8192, ge=1, le=10_000_000)
    optimizer: Literal["adam", "adamw", "lbfgs"] = "adam"
    learning_rate: float = Field(gt=0, le=100)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    schedule: Literal["constant", "cosine"] = "cosine"
    quality_steps: int = Field(ge=1)
    fitness_steps: int = Field(ge=1)
    rerank_steps: int = Field(ge=1)
    dtype: Literal["float32", "float64"] = "float32"

    @field_validator("data")
    @classmethod
    def _known(cls, name: str) -> str:
        REGRESSION_SETS[name]
        return name

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        splits = REGRESSION_SETS[self.data].splits
        rules = [
            (
                self.split < max(1, splits),
                f"split of {self.data} must be in [0, {max(0, splits - 1)}], got {self.split}"
                if splits
                else f"split must be 0 for {self.data}, which has no published splits, got {self.split}",
            ),
            (
                self.quality_steps <= self.fitness_steps,
                f"quality_steps must be at most fitness_steps, got {self.quality_steps} > {self.fitness_steps}",
            ),
            (
                self.validation_fraction + self.holdout_fraction < 1,
                "validation_fraction + holdout_fraction must be less than 1, "
                f"got {self.validation_fraction + self.holdout_fraction:g}",
            ),
            (
                self.optimizer != "lbfgs" or self.batch == 0,
                f"batch must be 0 (all rows) with lbfgs, got {self.batch}",
            ),
            (
                self.optimizer == "adamw" or self.weight_decay == 0,
                f"weight_decay must be 0 but with adamw, got {self.weight_decay:g} with {self.optimizer}",
            ),
        ]
        for holds, rule in rules:
            if not holds:
                raise ValueError(rule)
        return self

    @property
    def sampling(self) -> Sampling:
        """How a function is drawn."""
        return Sampling(self.points, self.test_points, self.sample_seed)

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """η, or η·(1 + cos(π·step/total))/2: a function of the step and the whole horizon alone."""
        if self.schedule == "constant" or self.optimizer == "lbfgs":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * step / total_steps)) / 2

    def fingerprint(self) -> str:
        """Equal for settings that train alike; a checkpoint is continued under no others."""
        text = self.model_dump_json(exclude=_NOT_OF_TRAINING)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Settings from plain values, as of JSON. Raises: RecipeError or UnknownNameError with one sentence."""
        return checked(cls, values)

    def replace(self, **changes: Any) -> Self:
        """A copy with ``changes``, checked as a whole. Raises: as ``parse``."""
        return self.parse({**self.model_dump(), **changes})

"""All that defines a regression task, every value checked: a run is what its settings say, on any machine."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from layersearch.spaces.tasks.functions import Sampling
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS
from layersearch.spaces.tasks.settings import Schedule, TrainingSettings, annealed, check_rules, rules_of_parts

__all__ = ["RegressionSettings"]


class RegressionSettings(TrainingSettings):
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

    not_of_training = frozenset({"eval_batch", "fitness_steps", "quality_steps", "rerank_steps"})

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
    schedule: Schedule = "cosine"
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
            *rules_of_parts(self),
            (
                self.optimizer != "lbfgs" or self.batch == 0,
                f"batch must be 0 (all rows) with lbfgs, got {self.batch}",
            ),
            (
                self.optimizer == "adamw" or self.weight_decay == 0,
                f"weight_decay must be 0 but with adamw, got {self.weight_decay:g} with {self.optimizer}",
            ),
        ]
        check_rules(rules)
        return self

    @property
    def sampling(self) -> Sampling:
        """How a function is drawn."""
        return Sampling(self.points, self.test_points, self.sample_seed)

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """See ``annealed``."""
        constant = self.optimizer == "lbfgs"
        return annealed(self.learning_rate, "constant" if constant else self.schedule, step, total_steps)

"""Recipes by name: ``smoke`` for minutes, ``small`` for hours, ``paper`` as published."""

from collections.abc import Callable
from typing import Any

from layersearch.primitives.registry import Registry
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS
from layersearch.spaces.tasks.regression.settings import RegressionSettings

__all__ = ["PRESETS", "preset"]

Recipe = tuple[dict[str, Any], dict[str, Any]]
"""For functions, and for tables."""


def _smoke() -> Recipe:
    functions = {
        "points": 2000,
        "test_points": 2000,
        "learning_rate": 1e-2,
        "quality_steps": 80,
        "fitness_steps": 400,
        "rerank_steps": 800,
    }
    tables = {
        "batch": 256,
        "optimizer": "adamw",
        "weight_decay": 1e-4,
        "learning_rate": 1e-2,
        "quality_steps": 100,
        "fitness_steps": 600,
        "rerank_steps": 1200,
    }
    return functions, tables


def _small() -> Recipe:
    functions, tables = _smoke()
    steps = {"quality_steps": 300, "fitness_steps": 2000, "rerank_steps": 5000}
    functions |= {"points": 5000, "test_points": 10_000, "validation_fraction": 0.1, "holdout_fraction": 0.1, **steps}
    return functions, tables | steps


def _paper() -> Recipe:
    """Functions: the recipe of arXiv:2509.03417 (4,000 training points, Adam at 1e-3, 2,000 full-batch steps)."""
    functions, tables = _small()
    functions |= {"learning_rate": 1e-3, "schedule": "constant", "rerank_steps": 2000}
    return functions, tables | {"batch": 64, "fitness_steps": 6000, "rerank_steps": 20_000}


PRESETS: Registry[Callable[[], Recipe]] = Registry("preset")
PRESETS.add("paper", _paper)
PRESETS.add("small", _small)
PRESETS.add("smoke", _smoke)


def preset(name: str, data: str) -> RegressionSettings:
    """The settings of preset ``name`` for the target ``data``. Raises: UnknownNameError for either name."""
    known = REGRESSION_SETS[data]
    functions, tables = PRESETS[name]()
    return RegressionSettings(data=data, **(tables if known.splits else functions))

"""Optuna's samplers by name, set up for runs whose parameters depend on each other."""

import random
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial

__all__ = ["sampler"]

_P_MUTATION = 0.1  # Optuna's is one parameter per trial; a layer has about a dozen


class _Inheriting(BaseGASampler):
    """Has parameters that not every trial asks for come from parents, too: each from one of two that have it.

    Optuna crosses what all trials have in common, and draws the rest at random: of a graph, all but its size and the
    output's op.
    """

    _shared: Mapping[str, BaseDistribution] = {}
    _parents: tuple[FrozenTrial, ...] = ()
    _random: random.Random

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        population = self.get_parent_population(study, self.get_trial_generation(study, trial))
        self._parents = tuple(self._random.choices(population, k=2)) if population else ()
        self._shared = search_space
        answers: dict[str, Any] = super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        return answers

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        having = [p for p in self._parents if p.distributions.get(param_name) == param_distribution]
        mutates = param_name in self._shared or self._random.random() < _P_MUTATION
        if mutates or not having:
            return super().sample_independent(study, trial, param_name, param_distribution)  # type: ignore[safe-super]
        return self._random.choice(having).params[param_name]


class _NSGAII(_Inheriting, NSGAIISampler):
    def __init__(self, population_size: int, seed: int) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._random = random.Random(seed)


class _NSGAIII(_Inheriting, NSGAIIISampler):
    def __init__(self, population_size: int, seed: int) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._random = random.Random(seed)


def sampler(name: str, seed: int, population: int) -> BaseSampler:
    """A fresh sampler. ``population`` is the size of a generation, where there are any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match name:
            case "tpe":
                return TPESampler(seed=seed)
            case "nsga2":
                return _NSGAII(population_size=max(2, population), seed=seed)
            case "nsga3":
                return _NSGAIII(population_size=max(2, population), seed=seed)
            case "gp":
                return GPSampler(seed=seed, warn_independent_sampling=False)
            case "cmaes":
                return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    assert name == "random", name
    return RandomSampler(seed=seed)

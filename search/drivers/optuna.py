"""Optuna's samplers as a driver; optuna itself is loaded when one is made."""

import importlib.util
import random
from collections.abc import Mapping

from layersearch.errors import BadInputError, RecipeError
from layersearch.primitives.registry import unknown_name
from layersearch.search.drivers._common import knobs
from layersearch.search.drivers.base import DRIVERS, Driver
from layersearch.search.trials import Choice, UniformTrial
from layersearch.spaces.contracts import Space, TunableSpace

__all__ = ["DEFAULT_SAMPLER", "SAMPLERS"]

DEFAULT_SAMPLER = "tpe"
SAMPLERS: Mapping[str, tuple[str, ...]] = {
    "cmaes": ("cmaes",),
    "gp": ("scipy", "torch"),
    "nsga2": (),
    "nsga3": (),
    "random": (),
    "tpe": (),
}
"""Names of samplers, and the packages that each needs beside optuna."""

_LOOKS = 64  # suggestions that are looked at for choices


def _make(space: Space, population: int, given: Mapping[str, float | str]) -> Driver:
    name = str(given.get("sampler", DEFAULT_SAMPLER))
    knobs("optuna", {key: value for key, value in given.items() if key != "sampler"}, {})
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, sorted(SAMPLERS))
    if not isinstance(space, TunableSpace):
        raise RecipeError(f"a space must have parameters to be tuned, and '{space.name}' has none; use search evolve")
    for package in ("optuna", *SAMPLERS[name]):
        if importlib.util.find_spec(package) is None:
            raise BadInputError(
                f"sampler '{name}' needs the package {package}, which is not installed; pip install {package}"
            )
    if name == "cmaes":
        _only_numbers_and_one_objective(space)
    from layersearch.search.drivers._optuna import OptunaDriver  # loads optuna

    return OptunaDriver(space, population, name)


def _only_numbers_and_one_objective(space: TunableSpace) -> None:
    """Raises: RecipeError. Optuna's CMA-ES itself would draw choices at random, and say nothing."""
    others = "use tpe, nsga2, nsga3 or gp"
    if len(space.objectives) > 1:
        names = ", ".join(o.name for o in space.objectives)
        raise RecipeError(f"sampler 'cmaes' takes one objective, got {len(space.objectives)} ({names}); {others}")
    rng = random.Random(0)
    for _ in range(_LOOKS):
        trial = UniformTrial(rng)
        space.suggest(trial)
        for parameter, question in trial.questions.items():
            if isinstance(question, Choice):
                raise RecipeError(f"sampler 'cmaes' takes numbers only, but {parameter} is a choice; {others}")


DRIVERS.add("optuna", _make)

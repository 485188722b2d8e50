"""What drivers share: the start from known layers, and the check of a driver's own knobs."""

from collections.abc import Mapping

from layersearch.errors import RecipeError
from layersearch.primitives.registry import unknown_name
from layersearch.search.drivers.base import Proposal
from layersearch.spaces.contracts import Space

__all__ = ["knobs", "seed_proposals"]


def seed_proposals(space: Space, population: int) -> list[Proposal]:
    """Known layers for the first slots: at most a quarter of the population, in the space's order of preference.

    The same for every driver, so that the control starts from what evolution starts from.
    """
    seeds = list(space.seeds().items())[: population // 4]
    return [Proposal(genome, "seed", name=name) for name, genome in seeds]


def knobs(driver: str, given: Mapping[str, float | str], defaults: Mapping[str, float]) -> dict[str, float]:
    """``defaults`` with what is ``given``. Raises: RecipeError for an unknown knob or one outside [0, 1]."""
    checked = dict(defaults)
    for name, value in given.items():
        full = f"driver.{name}"  # as it is written after --set
        if name not in defaults:
            if not defaults:
                raise RecipeError(f"driver '{driver}' has no settings, got '{full}'; leave it out")
            raise RecipeError(str(unknown_name("setting", full, [f"driver.{known}" for known in sorted(defaults)])))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise RecipeError(f"{full} must be between 0 and 1, got {value!r}; change it")
        checked[name] = value
    return checked

"""Points of a function: one pool to train and select on, and test points that are drawn apart from it."""

from dataclasses import dataclass

import numpy as np

from layersearch.errors import DataError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.tasks.functions.function import Floats, Function

__all__ = ["Sampling", "sampled"]


@dataclass(frozen=True)
class Sampling:
    """How many points, and from which seed.

    Args:
        points: of the pool that training, validation and hold-out are cut from.
        test_points: drawn at random, unless the function has a test grid.
        seed: of both; the same for all candidates and runs that are to be compared.
    """

    points: int = 2000
    test_points: int = 5000
    seed: int = 0


def sampled(name: str, function: Function, how: Sampling) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Pool and test part, each ``(x [N, d], y [N])``; uniform on the domain, pool values with the function's noise.

    Raises: DataError if a value is not finite.
    """
    seeds = Seeds(how.seed)
    pool = _uniform(function, how.points, seeds.derive("pool", name))
    if function.test_grid is None:
        test = _uniform(function, how.test_points, seeds.derive("test", name))
    else:
        axes = [np.linspace(low, high, function.test_grid) for low, high in function.domain]
        test = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=-1)
    pool_y, test_y = function(pool), function(test)
    if not (np.isfinite(pool_y).all() and np.isfinite(test_y).all()):
        raise DataError(f"a target must be finite on its domain, and '{name}' is not; choose another data set")
    if function.noise:
        rng = np.random.Generator(np.random.PCG64(seeds.derive("noise", name)))
        pool_y = pool_y + function.noise * rng.standard_normal(len(pool_y))
    return (pool, pool_y), (test, test_y)


def _uniform(function: Function, points: int, seed: int) -> Floats:
    rng = np.random.Generator(np.random.PCG64(seed))
    low, high = np.array(function.domain).T
    drawn: Floats = low + (high - low) * rng.random((points, function.dimension))
    return drawn

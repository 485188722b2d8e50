"""Four disjoint parts, so that nothing the search looked at decides what is reported (honest measurement)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.primitives.seeds import Seeds

__all__ = ["Parts", "split"]

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Parts:
    """Row numbers, in random order. The first three index the pool, ``test`` the test part."""

    train: Indices
    validation: Indices
    holdout: Indices
    test: Indices


def split(n_pool: int, n_test: int, *, validation: float, holdout: float, seed: int) -> Parts:
    """Cuts the pool; the same arguments give the same parts.

    Args:
        validation, holdout: fraction of the pool (rounded, at least one row).
    Raises: DataError if nothing would be left to train on.
    """
    rng = np.random.Generator(np.random.PCG64(Seeds(seed).derive("regression split")))
    order = rng.permutation(n_pool)
    n_validation, n_holdout = (max(1, round(fraction * n_pool)) for fraction in (validation, holdout))
    n_train = n_pool - n_validation - n_holdout
    if n_train < 2:
        raise DataError(
            f"train, validation and hold-out must be cut from at least 4 rows, got {n_pool}; use more data or "
            "smaller fractions"
        )
    train, valid, held = np.split(order, [n_train, n_train + n_validation])
    return Parts(train, valid, held, rng.permutation(n_test))

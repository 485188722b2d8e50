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
    """Row numbers. ``train``, ``validation`` and ``holdout`` index the published training set, ``test`` the test set.

    Each is in random order, so that its first k rows are a fair sample of it.
    """

    train: Indices
    validation: Indices
    holdout: Indices
    test: Indices


def split(labels: Indices, n_test: int, *, validation: float, holdout: float, seed: int) -> Parts:
    """Splits the published training set, stratified by class; the same arguments give the same parts.

    Args:
        labels: int64 ``[N]``, classes of the published training set.
        n_test: size of the published test set.
        validation, holdout: fraction of each class that goes to the part (rounded, at least one image).
        seed: of the split.
    Raises: DataError if a class is too small to be in all three parts.
    """
    rng = np.random.Generator(np.random.PCG64(Seeds(seed).derive("split")))
    parts: tuple[list[Indices], list[Indices], list[Indices]] = ([], [], [])
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        n_validation = max(1, round(validation * len(members)))
        n_holdout = max(1, round(holdout * len(members)))
        if n_validation + n_holdout >= len(members):
            raise DataError(
                f"each class must fill train, validation and hold-out, class {label} has {len(members)} images; "
                "use more data or smaller fractions"
            )
        cuts = [len(members) - n_validation - n_holdout, len(members) - n_holdout]
        for part, rows in zip(parts, np.split(members, cuts), strict=True):
            part.append(rows)
    train, valid, held = (rng.permutation(np.concatenate(rows)) for rows in parts)
    return Parts(train, valid, held, rng.permutation(n_test))

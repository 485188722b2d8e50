"""A regression data set in one form: a pool of observed points and a test part, in the units of the source."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.spaces.contracts import Arrays

__all__ = ["Floats", "RegressionData", "from_arrays", "to_arrays"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegressionData:
    """A published (or drawn) pool and test part.

    Args:
        train_x, test_x: float64 ``[N, d]``.
        train_y, test_y: float64 ``[N]``.
        domain: lower and upper ends of the variables, ``[2, d]``, where they are known; ``[0, d]`` for tables, whose
            columns are standardised on the search-train part instead.
        name: a name of ``REGRESSION_SETS``.
    Raises: DataError if shapes do not fit or a number is not finite.
    """

    train_x: Floats
    train_y: Floats
    test_x: Floats
    test_y: Floats
    domain: Floats
    name: str

    def __post_init__(self) -> None:
        d = self.train_x.shape[-1]
        for part, x, y in (("train", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            if x.ndim != 2 or y.ndim != 1 or x.shape != (len(y), d) or len(y) == 0:
                raise DataError(
                    f"the {part} part of '{self.name}' must be [N, {d}] inputs and [N] targets, got "
                    f"{list(x.shape)} and {list(y.shape)}; correct the data"
                )
            if not np.isfinite(x).all():
                raise DataError(f"the inputs of '{self.name}' must be finite, and {part} has some that are not; clean")
            if not np.isfinite(y).all():
                raise DataError(f"the target of '{self.name}' must be finite, and {part} has some that is not; clean")


def to_arrays(data: RegressionData) -> Arrays:
    """``data`` as plain arrays, which processes can share. Inverse of ``from_arrays``."""
    return {
        "train_x": data.train_x,
        "train_y": data.train_y,
        "test_x": data.test_x,
        "test_y": data.test_y,
        "domain": data.domain,
        "name": np.frombuffer(data.name.encode("utf-8"), np.uint8),
    }


def from_arrays(arrays: Arrays) -> RegressionData:
    """The data set that ``to_arrays`` took apart. Raises: DataError if an array is missing or broken."""
    try:
        name = arrays["name"].tobytes().decode("utf-8")
        parts = {key: arrays[key] for key in ("train_x", "train_y", "test_x", "test_y", "domain")}
    except KeyError as missing:
        raise DataError(f"the arrays of a regression task must include {missing}, got {sorted(arrays)}") from None
    return RegressionData(name=name, **parts)

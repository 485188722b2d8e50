"""UCI regression sets with the splits of Hernandez-Lobato and Adams (2015), so that published RMSE tables apply."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.primitives.registry import Registry
from layersearch.spaces.tasks.files import read_bytes, require_folder

__all__ = ["TABLES", "Table", "read_table"]

Floats = NDArray[np.float64]

_LARGEST = 64 * 2**20
_SOURCE = "UCI, splits of Hernandez-Lobato and Adams 2015 (arXiv:1502.05336)"


@dataclass(frozen=True)
class Table:
    """What is known of a table before it is read.

    Args:
        target: what is predicted, with its unit.
        rows, dimension: N and d.
        splits: number of published splits into train and test.
        source: where it comes from.
    """

    target: str
    rows: int
    dimension: int
    splits: int = 20
    source: str = _SOURCE


TABLES: Registry[Table] = Registry("table")
"""By the name after ``uci:``."""
TABLES.add("concrete", Table("compressive strength, MPa", 1030, 8))
TABLES.add("energy", Table("heating load, kWh/m²", 768, 8))
TABLES.add("kin8nm", Table("distance of a robot arm's end from a target", 8192, 8))
TABLES.add("naval", Table("decay of a gas turbine's compressor", 11934, 16))
TABLES.add("power_plant", Table("net hourly output, MW", 9568, 4))
TABLES.add("protein", Table("deviation of a protein's structure, Å", 45730, 9, splits=5))
TABLES.add("wine_quality_red", Table("quality, 3 to 8", 1599, 11))
TABLES.add("yacht", Table("residuary resistance", 308, 6))


def read_table(name: str, data_dir: Path | None, split: int) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Train and test part of a published split, each ``(x [N, d], y [N])``, in the units of the file.

    Reads ``uci/NAME.npz`` of the data folder: ``X`` ``[N, d]``, ``y`` ``[N]`` and ``test_mask`` ``[splits, N]``.

    Raises: DataError, in one sentence, if the file is missing, truncated or not of this table; UnknownNameError.
    """
    known = TABLES[name]
    if not 0 <= split < known.splits:
        raise DataError(f"split of 'uci:{name}' must be in [0, {known.splits - 1}], got {split}; choose another")
    path = require_folder(data_dir, f"uci:{name}", "uci") / f"{name}.npz"
    x, y, test = _arrays(path)
    shapes = {"X": (x, (known.rows, known.dimension)), "y": (y, (known.rows,)), "test_mask": (test, None)}
    for key, (array, shape) in shapes.items():
        expected = shape or (known.splits, known.rows)
        if array.shape != expected:
            raise DataError(f"{key} of {path} must have the shape {expected}, got {array.shape}; fetch the file again")
    if test.dtype != np.bool_ or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(f"{path} must hold finite numbers and truth values, and does not; fetch the file again")
    mask = test[split]
    if not 0 < mask.sum() < known.rows:
        raise DataError(f"split {split} of {path} must have train and test rows, and has not; fetch the file again")
    return (x[~mask], y[~mask]), (x[mask], y[mask])


def _arrays(path: Path) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    content = read_bytes(path, at_most=_LARGEST)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return archive["X"].astype(np.float64), archive["y"].astype(np.float64), archive["test_mask"]
    except (ValueError, KeyError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())[:100]
        raise DataError(
            f"{path} must be an .npz with X, y and test_mask, and cannot be read ({why}); fetch the file again"
        ) from None

"""Named click-through sets, read from files as they are given out; nothing is downloaded."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.primitives.registry import Registry
from layersearch.spaces.tasks.ctr.data import CTRData
from layersearch.spaces.tasks.ctr.libsvm import from_indices
from layersearch.spaces.tasks.ctr.planted import planted

__all__ = ["CTR_SETS", "CTRSet", "load_ctr"]

FRAPPE = "ctr/derived/frappe_x1_rebuilt.npz"
FRAPPE_FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
MOVIELENS = "ctr/ml-100k"


@dataclass(frozen=True)
class CTRSet:
    """What is known of a set before it is read: how, and about what."""

    read: Callable[[Path | None], CTRData]
    about: str


def _path(data_dir: Path | None, name: str, inside: str) -> Path:
    if data_dir is None:
        raise DataError(
            f"data set '{name}' is read from files, got no data folder; give --data-dir a folder with {inside} in it"
        )
    path = data_dir / inside
    if not path.exists():
        raise DataError(
            f"data set '{name}' must lie in {path}, which is missing; put it there or give another --data-dir"
        )
    return path


def _frappe(data_dir: Path | None) -> CTRData:
    """Frappe_x1: published validation and test rows; training rows rebuilt, with re-drawn items of negatives."""
    path = _path(data_dir, "frappe", FRAPPE)
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {
                part: (file[f"X{tag}"].astype(np.int64), file[f"y{tag}"].astype(np.uint8))
                for part, tag in (("train", "tr"), ("validation", "va"), ("test", "te"))
            }
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} must hold the arrays Xtr, ytr, Xva, yva, Xte, yte ({error!s:.80}); make it again"
        ) from None
    return from_indices("frappe", FRAPPE_FIELDS, parts)


def _movielens(data_dir: Path | None) -> CTRData:
    """MovieLens-100k, label rating >= 4; each user's first 80 % train, next 10 % validation, last 10 % test."""
    folder = _path(data_dir, "movielens", MOVIELENS)
    ratings = _table(folder / "ml-100k.inter")
    users = {row[0]: row[1:5] for row in _table(folder / "ml-100k.user")}
    items = {row[0]: row[1:4] for row in _table(folder / "ml-100k.item")}
    try:
        columns = [(u, i, *users[u], items[i][1], items[i][2]) for u, i, *_ in ratings]
        ratings_given = np.array([float(row[2]) for row in ratings])
        times = np.array([float(row[3]) for row in ratings])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(
            f"the files of {folder} must belong together, {error!s:.60} does not fit; get them again"
        ) from None
    texts = np.array(columns)
    codes = np.stack([np.unique(texts[:, j], return_inverse=True)[1] for j in range(texts.shape[1])], 1)
    hours = (times // 3600 % 24).astype(np.int64)
    weekdays = ((times // 86_400 + 3) % 7).astype(np.int64)  # 1970-01-01 was a Thursday
    indices = np.concatenate([codes, hours[:, None], weekdays[:, None]], 1).astype(np.int64)
    labels = (ratings_given >= 4).astype(np.uint8)
    share = _share_of_group(codes[:, 0], times)
    masks = {"train": share < 0.8, "validation": (share >= 0.8) & (share < 0.9), "test": share >= 0.9}
    names = ("user", "item", "age", "gender", "occupation", "zip", "year", "genres", "hour", "weekday")
    return from_indices("movielens", names, {part: (indices[mask], labels[mask]) for part, mask in masks.items()})


def _share_of_group(groups: NDArray[np.int64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, the share of its group's rows that come before it; ties in the order of the file."""
    order = np.lexsort((np.arange(len(groups)), times, groups))
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    share = np.empty(len(groups))
    share[order] = (np.arange(len(groups)) - starts[groups[order]]) / sizes[groups[order]]
    return share


def _table(path: Path) -> list[list[str]]:
    """Rows after the header of a tab-separated file, columns that differ in number filled up with empty texts."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the data file {path} cannot be read ({error!s:.80}); put it there") from None
    width = len(rows[0]) if rows else 0
    return [row + [""] * (width - len(row)) for row in rows[1:]]


CTR_SETS: Registry[CTRSet] = Registry("data set")
CTR_SETS.add("planted", CTRSet(lambda _: planted(), "made here: known useful values, fields and pairs"))
CTR_SETS.add("frappe", CTRSet(_frappe, "use of mobile apps in context, Frappe_x1 with rebuilt training negatives"))
CTR_SETS.add("movielens", CTRSet(_movielens, "MovieLens-100k, by time within users"))


def load_ctr(name: str, data_dir: Path | None = None) -> CTRData:
    """Reads a set. Raises: UnknownNameError; DataError with one sentence if files are missing or foreign."""
    return CTR_SETS[name].read(data_dir)

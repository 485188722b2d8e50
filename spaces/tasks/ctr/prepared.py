"""Named click-through sets, read from files as they are given out; nothing is downloaded."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.primitives.registry import Registry
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.tasks.ctr.data import CTRData, Part, PartName
from layersearch.spaces.tasks.ctr.libsvm import from_indices
from layersearch.spaces.tasks.ctr.planted import planted

PARTS: tuple[PartName, ...] = ("train", "validation", "test")

__all__ = ["CTR_SETS", "CTRSet", "load_ctr"]

FRAPPE = "ctr/derived/frappe_x1_rebuilt.npz"
FRAPPE_FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
MOVIELENS = "ctr/ml-100k"
GROCERY = "ctr/grocery"
HISTORY = 20
"""Past items of a row of the grocery set, the most recent ones."""


@dataclass(frozen=True)
class CTRSet:
    """What is known of a set before it is read: how, about what, whether rows have a history, whether it has seeds."""

    read: Callable[[Path | None, int], CTRData]
    about: str
    has_history: bool = False
    has_seeds: bool = False


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


def _frappe(data_dir: Path | None, _: int) -> CTRData:
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


def _movielens(data_dir: Path | None, _: int) -> CTRData:
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


def _grocery(data_dir: Path | None, _: int) -> CTRData:
    """Amazon Grocery (ReChorus): does a user buy this item next, given what he bought before?

    Per user the last purchase is tested, the one before it validated, the others from the second on are trained on; to
    each comes one item at random that he never bought, with the same history.
    """
    folder = _path(data_dir, "grocery", GROCERY)
    try:
        purchases = np.array(_table(folder / "train.csv"), dtype=np.int64)
        categories = {int(row[0]): int(row[1]) for row in _table(folder / "item_meta.csv")}
        users, items, times = purchases.T
        category = np.array([categories[i] for i in items.tolist()])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(
            f"the files of {folder} must belong together, {error!s:.60} does not fit; get them again"
        ) from None
    order = np.lexsort((np.arange(len(users)), times, users))
    users, items, category = users[order], items[order], category[order]
    rng = np.random.Generator(np.random.PCG64(Seeds(0).derive("grocery")))
    known, places = np.unique(items, return_index=True)
    category_of = dict(zip(known.tolist(), category[places].tolist(), strict=True))
    # A pair as one number: whether it was ever bought is one search.
    most = int(items.max()) + 1
    bought = np.unique(users * most + items)
    others = known[rng.integers(len(known), size=len(users))]
    while len(again := np.flatnonzero(np.isin(users * most + others, bought))):
        others[again] = known[rng.integers(len(known), size=len(again))]
    starts = np.flatnonzero(np.concatenate([[True], users[1:] != users[:-1]]))
    sizes = np.diff(np.append(starts, len(users)))
    position = np.arange(len(users)) - np.repeat(starts, sizes)
    left = np.repeat(sizes, sizes) - 1 - position
    back = np.arange(HISTORY)[None, :] - np.minimum(position, HISTORY)[:, None]  # below 0: so many purchases ago
    before = np.where(back < 0, np.arange(len(users))[:, None] + back, 0)
    past = np.where(back < 0, items[before], -1)
    masks = {"train": (left >= 2) & (position >= 1), "validation": (left == 1) & (position >= 1), "test": left == 0}
    masks["test"] &= position >= 1
    parts, histories, groups = {}, {}, {}
    for part, mask in masks.items():
        chosen = np.concatenate([items[mask], others[mask]])
        user = np.tile(users[mask], 2)
        kind = np.array([category_of[i] for i in chosen.tolist()])
        labels = np.repeat([1, 0], mask.sum()).astype(np.uint8)
        parts[part] = (np.stack([user, chosen, kind], 1), labels)
        histories[part], groups[part] = np.tile(past[mask], (2, 1)), user.astype(np.int32)
    data = from_indices("grocery", ("user", "item", "category"), parts)
    words = np.array([int(text) for text in data.vocabulary[1]])

    def with_past(part: PartName) -> Part:
        rows, texts = data.part(part), histories[part]
        place = np.minimum(np.searchsorted(words, texts), len(words) - 1)
        ids = np.where(words[place] == texts, place + 1, 0) + data.offsets[1]
        return Part(rows.ids, rows.labels, np.where(texts < 0, -1, ids).astype(np.int32), groups[part])

    made = {part: with_past(part) for part in PARTS}
    return replace(data, train=made["train"], validation=made["validation"], test=made["test"], target=1)


def _share_of_group(groups: NDArray[np.int64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, the share of its group's rows that come before it; ties in the order of the file."""
    order = np.lexsort((np.arange(len(groups)), times, groups))
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    share = np.empty(len(groups))
    share[order] = (np.arange(len(groups)) - starts[groups[order]]) / sizes[groups[order]]
    return share


def _table(path: Path) -> list[list[str]]:
    """Rows after the header of a tab-separated file, those that are short filled up with empty texts."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the data file {path} cannot be read ({error!s:.80}); put it there") from None
    width = len(rows[0]) if rows else 0
    return [row + [""] * (width - len(row)) for row in rows[1:]]


CTR_SETS: Registry[CTRSet] = Registry("data set")
CTR_SETS.add(
    "planted",
    CTRSet(lambda _, seed: planted(seed), "made here: known useful values, fields and pairs", has_seeds=True),
)
CTR_SETS.add("frappe", CTRSet(_frappe, "use of mobile apps in context, Frappe_x1 with rebuilt training negatives"))
CTR_SETS.add("grocery", CTRSet(_grocery, "Amazon Grocery, the next purchase after a history, leave-last-out", True))
CTR_SETS.add("movielens", CTRSet(_movielens, "MovieLens-100k, by time within users"))


def load_ctr(name: str, data_dir: Path | None = None, seed: int = 0) -> CTRData:
    """Reads a set. ``seed`` is that of a set that is made.

    Raises: UnknownNameError; DataError with one sentence if files are missing or foreign, or a set has no seeds.
    """
    row = CTR_SETS[name]
    if seed and not row.has_seeds:
        raise DataError(f"the data seed of '{name}' must be 0, its rows are given, got {seed}; leave it out")
    return row.read(data_dir, seed)

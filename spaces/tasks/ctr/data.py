"""Click-through data in one form: ids counted over all fields, a label, perhaps a history."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError

__all__ = ["CTRData", "Part", "PartName", "Truth"]

PartName = Literal["train", "validation", "holdout", "test"]


@dataclass(frozen=True, eq=False)
class Part:
    """Rows.

    Args:
        ids: int32 ``[N, m]``, offset of the field added; the first id of a field stands for its unknown values.
        labels: uint8 ``[N]``, 0 or 1.
        history: int32 ``[N, L]``, ids of the target field, most recent last, -1 where there is nothing; or None.
        groups: int ``[N]`` to average AUC over (users), or None.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.uint8]
    history: NDArray[np.int32] | None = None
    groups: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Truth:
    """What was planted: bool ``[n]`` useful values, ``[m]`` fields, ``[P]`` pairs, and the logit of each test row."""

    values: NDArray[np.bool_]
    fields: NDArray[np.bool_]
    pairs: NDArray[np.bool_]
    test_logits: NDArray[np.float64]

    def precision_recall(
        self, selected: NDArray[np.bool_], counts: NDArray[np.int64], least: int = 50
    ) -> tuple[float, float]:
        """Precision and recall of selected values among those that occur at least ``least`` times in train."""
        seen = counts >= least
        return _precision_recall(selected[seen], self.values[seen])

    def pair_precision_recall(self, selected: NDArray[np.bool_]) -> tuple[float, float]:
        """The same of pairs of fields."""
        return _precision_recall(selected, self.pairs)


def _precision_recall(selected: NDArray[np.bool_], useful: NDArray[np.bool_]) -> tuple[float, float]:
    right = int((selected & useful).sum())
    return right / max(1, int(selected.sum())), right / max(1, int(useful.sum()))


@dataclass(frozen=True, eq=False)
class CTRData:
    """A data set.

    Args:
        fields: names.
        sizes: ids per field, the one of unknown values included.
        vocabulary: per field the texts of its ids 1, 2, …; empty if unknown.
        target: field that the history is made of.
        bins: inner edges of a field of numbers, by its place: id 1 is a missing number, 2 … are the intervals.
        missing: texts that stand for no value.
        holdout: rows for a re-rank, that no search sees; see ``with_holdout``.
        content: of the files that it was read from (``cache.content_of``); empty for a set.
    Raises: DataError if a part is empty, or its ids are not those of the fields.
    """

    name: str
    fields: tuple[str, ...]
    sizes: tuple[int, ...]
    train: Part
    validation: Part
    test: Part
    truth: Truth | None = None
    vocabulary: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    target: int = 0
    bins: Mapping[int, tuple[float, ...]] = field(default_factory=dict, repr=False)
    missing: tuple[str, ...] = ()
    holdout: Part | None = None
    content: str = ""

    def __post_init__(self) -> None:
        low = np.array(self.offsets)
        high = low + self.sizes
        for name in ("train", "validation", "holdout", "test"):
            part: Part | None = getattr(self, name)
            if part is None:
                continue
            if len(part) == 0:
                raise DataError(f"the {name} part of '{self.name}' must have rows, got none; give more data")
            if part.ids.shape != (len(part), len(self.sizes)):
                raise DataError(
                    f"the {name} part of '{self.name}' must have {len(self.sizes)} ids per row, got an array "
                    f"{list(part.ids.shape)}; encode it by its schema"
                )
            if (part.ids.min(0) < low).any() or (part.ids.max(0) >= high).any():
                raise DataError(f"ids of the {name} part of '{self.name}' must lie in their fields; encode it again")

    @functools.cached_property
    def offsets(self) -> tuple[int, ...]:
        """First id of each field: that of its unknown values."""
        return tuple(int(x) for x in np.concatenate([[0], np.cumsum(self.sizes)[:-1]]))

    @functools.cached_property
    def counts(self) -> NDArray[np.int64]:
        """Occurrences of each id in the training rows, ``[n]``."""
        return np.bincount(self.train.ids.ravel(), minlength=sum(self.sizes))

    @property
    def has_history(self) -> bool:
        return self.train.history is not None

    def part(self, name: PartName) -> Part:
        """Raises: DataError if there is no such part."""
        found: Part | None = getattr(self, name)
        if found is None:
            raise DataError(f"'{self.name}' must have a part '{name}', and has none; split it with with_holdout")
        return found

    def with_holdout(self) -> "CTRData":
        """Every other validation row becomes a row of ``holdout``. Raises: DataError unless each part has both labels.

        Validation rows are the ones to spare: a training that stops by fewer of them is still the same training.
        """
        if self.holdout is not None:
            raise DataError(f"'{self.name}' can be split once, got a split one; use it as it is")
        data = replace(self, validation=_every_other(self.validation, 0), holdout=_every_other(self.validation, 1))
        for name in ("train", "validation", "holdout", "test"):
            part: Part = getattr(data, name)
            if part.labels.min() == part.labels.max():
                rows = f"{len(part)} row{'s' if len(part) > 1 else ''} with label {part.labels[0]}"
                raise DataError(
                    f"the {name} part of '{self.name}' must have clicks and rows without, got {rows} alone; give more "
                    "data"
                )
        return data


def _every_other(part: Part, first: int) -> Part:
    def cut(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else array[first::2]

    return Part(part.ids[first::2], part.labels[first::2], cut(part.history), cut(part.groups))

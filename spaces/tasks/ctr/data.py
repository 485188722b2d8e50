"""Click-through data in one form: ids counted over all fields, a label, perhaps a history."""

import functools
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError

__all__ = ["CTRData", "Part", "PartName", "Truth"]

PartName = Literal["train", "validation", "test"]


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

    def __post_init__(self) -> None:
        low = np.array(self.offsets)
        high = low + self.sizes
        for name in ("train", "validation", "test"):
            part: Part = getattr(self, name)
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

    def part(self, name: PartName) -> Part:
        found: Part = getattr(self, name)
        return found

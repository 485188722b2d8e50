"""From texts to ids: a vocabulary per field, made of the training rows alone."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layersearch.errors import DataError

__all__ = ["MISSING", "Bins", "Vocabulary", "VocabularyMaker", "numbers"]

MISSING = "(missing)"
"""How a value that is not there is written."""


@dataclass(frozen=True)
class Vocabulary:
    """Values with ids 1, 2, …, the most frequent first, ties in the order of their texts; 0 is any other value."""

    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Ids, 0 included."""
        return len(self.values) + 1

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {value: i for i, value in enumerate(self.values, 1)}

    def encode(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Ids of texts."""
        return np.fromiter(map(self._ids.get, texts, itertools.repeat(0)), np.int32, len(texts))


class VocabularyMaker:
    """Counts values chunk by chunk."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, texts: Iterable[str]) -> None:
        self._counts.update(texts)

    def make(self, min_count: int = 1) -> Vocabulary:
        kept = [(-count, value) for value, count in self._counts.items() if count >= min_count]
        return Vocabulary(tuple(value for _, value in sorted(kept)))

    def only(self) -> str | None:
        """The single value, if there is no other."""
        return next(iter(self._counts)) if len(self._counts) == 1 else None


@dataclass(frozen=True)
class Bins:
    """Quantiles of numbers: id 0 unknown (never given), 1 missing or NaN, 2 … by interval, left ends included."""

    edges: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.edges) + 3

    @property
    def values(self) -> tuple[str, ...]:
        """Names of ids 1, 2, …"""
        ends = ["-inf", *(f"{edge:g}" for edge in self.edges), "inf"]
        return (MISSING, *(f"[{a}, {b})" for a, b in itertools.pairwise(ends)))

    def encode(self, values: NDArray[np.float64]) -> NDArray[np.int32]:
        ids = np.searchsorted(np.array(self.edges), values, side="right") + 2
        return np.where(np.isnan(values), 1, ids).astype(np.int32)

    @classmethod
    def fit(cls, values: NDArray[np.float64], bins: int) -> "Bins":
        """At most ``bins`` intervals of about equal numbers of the given (non-NaN) values."""
        present = values[~np.isnan(values)]
        if len(present) == 0:
            return cls(())
        quantiles = np.quantile(present, np.arange(1, bins) / bins, method="lower")
        edges = np.unique(quantiles)
        return cls(tuple(float(edge) for edge in edges if edge > present.min()))


_BOOLEANS = {"True": "1", "False": "0", "true": "1", "false": "0", "TRUE": "1", "FALSE": "0"}


def numbers(texts: Sequence[str], missing: Sequence[str], where: Callable[[int], str]) -> NDArray[np.float64]:
    """Texts as numbers, NaN for those of ``missing``, true and false as 1 and 0; ``where`` names a cell for messages.

    Raises: DataError for a text that is no number or is infinite.
    """
    instead = _BOOLEANS | dict.fromkeys(missing, "nan")
    try:
        values = np.fromiter(map(float, map(instead.get, texts, texts)), np.float64, len(texts))
    except ValueError:
        i = next(i for i, text in enumerate(texts) if not _is_number(instead.get(text, text)))
        raise DataError(
            f"{where(i)} must be a number, got {texts[i]!r:.40}; correct it or make it categorical"
        ) from None
    if np.isinf(values).any():
        i = int(np.isinf(values).argmax())
        raise DataError(f"{where(i)} must be finite, got {texts[i]!r:.40}; correct it")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""Tables to click-through data, in two passes of chunks: the first, over training rows, finds vocabularies and bins."""

import dataclasses
import errno
import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from layersearch.errors import DataError
from layersearch.kernels.user_cache import own_folder, user_folder
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.tasks.ctr.cache import Cached, cached, content_of, rows_key
from layersearch.spaces.tasks.ctr.data import CTRData, Part
from layersearch.spaces.tasks.ctr.schema import Column, Schema
from layersearch.spaces.tasks.ctr.tables import CHUNK, cell_name, read_chunks
from layersearch.spaces.tasks.ctr.vocabulary import MISSING, Bins, Vocabulary, VocabularyMaker, numbers

__all__ = ["PARTS", "read_tables"]

PARTS = ("train", "validation", "test")
QUANTILE_ROWS = 1_000_000
"""Numbers of a column that its quantiles are taken from, a random sample beyond."""

Texts = Mapping[str, Sequence[str]]
Lists = Mapping[str, Sequence[list[str]]]
Encoder = Vocabulary | Bins


def read_tables(
    files: Path | Mapping[str, Path],
    schema: Schema,
    *,
    cache: Path | None = None,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    name: str = "table",
    chunk: int = CHUNK,
    content: str | None = None,
) -> CTRData:
    """The data of one table, split at random, or of three.

    Vocabularies and bins come from the training rows alone; a value that does not occur there has the first id of its
    field. No more than a few chunks of rows are in memory; the encoded rows are mapped from ``cache``, where the same
    files with the same schema are found again by their content.

    Args:
        files: one table, or those of ``PARTS``.
        cache: folder for encoded rows, of which ``CACHE_LIMIT_BYTES`` are kept; if None, ``layersearch/rows`` in the
            user's cache, or where that cannot take them a temporary one, removed at the end of the process.
        fractions: of train, validation and test, for one table.
        seed: of the split.
        chunk: rows in memory at a time.
        content: what ``content_of`` the files must be; None for any.
    Raises: DataError naming file, row and column, or the folder if there is no room.
    """
    sources = (
        {"all": files} if isinstance(files, Path) else {part: Path(files[part]) for part in PARTS if part in files}
    )
    if not isinstance(files, Path) and len(sources) < len(PARTS):
        raise DataError(
            f"tables must be given for {', '.join(PARTS)}, got {', '.join(files) or 'none'}; name all three"
        )
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"fractions must be above 0 and sum to 1, got {list(fractions)}; use 0.8, 0.1, 0.1")
    settings = {"schema": dataclasses.asdict(schema), "fractions": fractions, "seed": seed, "parts": list(sources)}
    content = content_of(list(sources.values()), content)
    work = _Preparation(sources, schema, fractions, seed, chunk)
    arrays, facts = _cached(cache, rows_key(content, settings), work.write)
    made = [Part(arrays[f"{part}_ids"], arrays[f"{part}_labels"], arrays.get(f"{part}_history")) for part in PARTS]
    names = tuple(column.name for column in schema.fields)
    target = names.index(schema.sequence.of) if schema.sequence else 0
    vocabulary = tuple(tuple(values) for values in facts["vocabulary"])
    bins = {int(place): tuple(edges) for place, edges in facts["bins"].items()}
    train, validation, test = made
    return CTRData(
        name,
        names,
        tuple(facts["sizes"]),
        train,
        validation,
        test,
        vocabulary=vocabulary,
        target=target,
        bins=bins,
        missing=schema.missing,
        content=content,
    )


def _cached(cache: Path | None, key: str, make: Callable[[Path], dict[str, Any]]) -> Cached:
    folder = cache or user_folder("rows")
    try:
        try:
            return cached(folder, key, make)
        except OSError:
            if cache is not None:
                raise
            folder = own_folder("rows")
            return cached(folder, key, make)
    except OSError as error:
        raise DataError(
            f"encoded rows must be written to {folder}, but that does not work ({error.strerror or error}); make room, "
            "or set XDG_CACHE_HOME to another folder"
        ) from None


class _Preparation:
    def __init__(
        self, sources: Mapping[str, Path], schema: Schema, fractions: tuple[float, float, float], seed: int, chunk: int
    ) -> None:
        self.sources, self.schema, self.chunk = sources, schema, chunk
        self.words = dict.fromkeys(schema.missing, MISSING)
        self.cuts = np.cumsum(fractions)[:-1]
        self.seeds = Seeds(seed)

    def write(self, folder: Path) -> dict[str, Any]:
        """Encoded parts as files; returns sizes and vocabularies."""
        encoders, rows = self._fit()
        for part, n in rows.items():
            if n == 0:
                raise DataError(f"the {part} part must have rows, got none; give more data or other fractions")
        sizes = [encoder.size for encoder in encoders.values()]
        offsets = dict(zip(encoders, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        sequence = self.schema.sequence
        length = 0 if sequence is None else sequence.length
        if shutil.disk_usage(folder).free < sum(rows.values()) * (4 * (len(sizes) + length) + 1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a full disk would kill who writes to mapped files
        ids = {p: open_memmap(folder / f"{p}_ids.npy", "w+", np.int32, (n, len(sizes))) for p, n in rows.items()}
        labels = {p: open_memmap(folder / f"{p}_labels.npy", "w+", np.uint8, (n,)) for p, n in rows.items()}
        past = {}
        if sequence is not None:
            past = {p: open_memmap(folder / f"{p}_history.npy", "w+", np.int32, (n, length)) for p, n in rows.items()}
        done = dict.fromkeys(PARTS, 0)
        for path, first, parts, texts, lists in self._chunks():
            clicks = self._labels(path, first, texts[self.schema.label])
            columns = []
            for column, encoder in zip(self.schema.fields, encoders.values(), strict=True):
                cells = texts[column.name]
                if isinstance(encoder, Vocabulary):
                    found = encoder.encode(self._words(cells))
                else:
                    found = encoder.encode(self._numbers(column, path, first, cells))
                columns.append(found + offsets[column.name])
            encoded = np.stack(columns, 1)
            history = None
            if sequence is not None:
                words = encoders[sequence.of]
                assert isinstance(words, Vocabulary)
                history = self._sequences(sequence, texts, lists, words, offsets[sequence.of])
            for i, part in enumerate(PARTS):
                mine = parts == i
                low, high = done[part], done[part] + int(mine.sum())
                ids[part][low:high] = encoded[mine]
                labels[part][low:high] = clicks[mine]
                if history is not None:
                    past[part][low:high] = history[mine]
                done[part] = high
        for array in (*ids.values(), *labels.values(), *past.values()):
            array.flush()
        bins = {place: list(e.edges) for place, e in enumerate(encoders.values()) if isinstance(e, Bins)}
        return {"sizes": sizes, "vocabulary": [list(encoder.values) for encoder in encoders.values()], "bins": bins}

    def _chunks(self) -> Iterator[tuple[Path, int, NDArray[np.int64], Texts, Lists]]:
        """File, number of the first row, part of each row, texts, sequences that are lists."""
        names = [self.schema.label, *(column.name for column in self.schema.columns)]
        sequence = self.schema.sequence
        for source, path in self.sources.items():
            chunks = read_chunks(path, names, self.chunk, lists=[sequence.name] if sequence else [])
            for number, (first, texts, lists) in enumerate(chunks):
                n = len(texts[self.schema.label])
                if source == "all":
                    rng = np.random.Generator(np.random.PCG64(self.seeds.derive("split", number)))
                    parts = np.searchsorted(self.cuts, rng.random(n), side="right")
                else:
                    parts = np.full(n, PARTS.index(source))
                yield path, first, parts, texts, lists

    def _fit(self) -> tuple[dict[str, Encoder], dict[str, int]]:
        fields = self.schema.fields
        makers = {column.name: VocabularyMaker() for column in fields if column.kind == "categorical"}
        samples = {column.name: _Sample(self.seeds.derive("quantiles", column.name)) for column in fields}
        rows = dict.fromkeys(PARTS, 0)
        for path, first, parts, texts, _ in self._chunks():
            self._labels(path, first, texts[self.schema.label])
            for i, part in enumerate(PARTS):
                rows[part] += int((parts == i).sum())
            of_train = parts == 0
            for column in fields:
                if column.name in makers:
                    makers[column.name].add(itertools.compress(self._words(texts[column.name]), of_train.tolist()))
                else:
                    samples[column.name].add(self._numbers(column, path, first, texts[column.name])[of_train])
        encoders: dict[str, Encoder] = {}
        for column in fields:
            if column.name in makers:
                empty = makers[column.name].only() == MISSING
                encoders[column.name] = makers[column.name].make(column.min_count)
            else:
                numbers_seen = samples[column.name].values
                empty = bool(np.isnan(numbers_seen).all())
                encoders[column.name] = Bins.fit(numbers_seen, column.bins)
            if empty and rows["train"]:
                raise DataError(
                    f"column '{column.name}' must have a value in some training row, all are missing; leave it out"
                )
        return encoders, rows

    def _words(self, texts: Sequence[str]) -> list[str]:
        """Values of a categorical column."""
        return list(map(self.words.get, texts, texts))

    def _numbers(self, column: Column, path: Path, first: int, texts: Sequence[str]) -> NDArray[np.float64]:
        absent = (*self.schema.missing, "")
        return numbers(texts, absent, functools.partial(cell_name, path, column.name, first))

    def _sequences(
        self, column: Column, texts: Texts, lists: Lists, words: Vocabulary, offset: int
    ) -> NDArray[np.int32]:
        """The last ``length`` values of each cell, at the front, -1 behind them."""
        if column.name in lists:
            recent = [values[-column.length :] for values in lists[column.name]]
        else:
            absent = {*self.schema.missing, ""}
            cells = texts[column.name]
            recent = [[] if cell in absent else cell.split(column.separator)[-column.length :] for cell in cells]
        lengths = np.array(list(map(len, recent)))
        out = np.full((len(recent), column.length), -1, np.int32)
        flat = self._words(list(itertools.chain(*recent)))
        out[np.arange(column.length) < lengths[:, None]] = words.encode(flat) + offset
        return out

    def _labels(self, path: Path, first: int, texts: Sequence[str]) -> NDArray[np.uint8]:
        cell = functools.partial(cell_name, path, self.schema.label, first)
        values = numbers(texts, (), cell)
        limit = self.schema.positive_from
        wrong = np.isnan(values) if limit is not None else ~np.isin(values, (-1.0, 0.0, 1.0))
        if wrong.any():
            i = int(wrong.argmax())
            rule = "a number" if limit is not None else "0 or 1 (or -1 and 1)"
            remedy = "correct it" if limit is not None else "correct it or say positive_from in the schema"
            raise DataError(f"{cell(i)} must be {rule}, got {texts[i]!r:.40}; {remedy}")
        return (values >= limit if limit is not None else values > 0).astype(np.uint8)


class _Sample:
    """At most ``QUANTILE_ROWS`` of all numbers, each with equal chance."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self.values = np.zeros(0)
        self._ranks = np.zeros(0)

    def add(self, values: NDArray[np.float64]) -> None:
        self.values = np.concatenate([self.values, values])
        self._ranks = np.concatenate([self._ranks, self._rng.random(len(values))])
        if len(self.values) > QUANTILE_ROWS:
            kept = np.argpartition(self._ranks, QUANTILE_ROWS)[:QUANTILE_ROWS]
            self.values, self._ranks = self.values[kept], self._ranks[kept]

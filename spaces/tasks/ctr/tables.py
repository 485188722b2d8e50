"""Tables as chunks of text columns: CSV, TSV and Parquet, a bounded part in memory at a time."""

import csv
import functools
import gzip
import itertools
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal, TextIO, TypeAlias

from layersearch.errors import DataError

__all__ = ["CHUNK", "DELIMITED", "PACKED", "Chunk", "cell_name", "ending_of", "read_chunks"]

CHUNK = 65_536
"""Rows in memory at a time."""
DELIMITED = (".csv", ".tsv", ".txt", ".inter")
PACKED = ".gz"

Chunk: TypeAlias = tuple[int, Mapping[str, Sequence[str]], Mapping[str, Sequence[list[str]]]]
"""Number of the first row (the first after the header is 1), texts by column, lists of texts by column."""

_MOST_WHOLE = 2.0**53
"""Up to here a float is as precise as the integer that it is written as."""


def read_chunks(
    path: Path, columns: Sequence[str], rows: int = CHUNK, *, lists: Collection[str] = ()
) -> Iterator[Chunk]:
    """The named columns of a table with a header, in chunks.

    The ending tells the format: ``.csv`` (commas, cells may be quoted), ``.tsv`` or ``.txt`` or ``.inter`` (tabs, a
    quotation mark is a character as any other), each also packed, as ``.csv.gz``; ``.parquet``. Empty lines are passed
    over and not counted. In Parquet null and NaN are the empty text, bytes are UTF-8, and whole numbers are written
    without a point whatever their type, as integers with a null among them are floats in many a file; a column may have
    lists in its cells if it is one of ``lists``.

    Raises: DataError with file, row and column for a missing file or column, a broken row, an unknown ending, or
        Parquet without pyarrow.
    """
    ending = ending_of(path)
    if ending == ".parquet":
        yield from _parquet(path, columns, rows, lists)
    elif ending.removesuffix(PACKED) in DELIMITED:
        yield from _delimited(path, columns, rows, "," if ending.startswith(".csv") else "\t")
    else:
        raise DataError(
            f"a table must end in {', '.join(DELIMITED)} (with or without {PACKED}) or .parquet, got {path.name}; "
            "convert it"
        )


def ending_of(path: Path) -> str:
    """In lower case; of packed files with the one before, as ``.csv.gz``."""
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + ending if ending == PACKED else ending


def _delimited(path: Path, columns: Sequence[str], rows: int, delimiter: str) -> Iterator[Chunk]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    try:
        with _opened(path) as file:
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
            not_empty = filter(None, reader)
            header = next(not_empty, None)
            if header is None:
                raise DataError(f"{path} must have a header and rows, got an empty file; write them")
            places = _places(path, columns, header)
            first = 1
            while lines := list(itertools.islice(not_empty, rows)):
                if set(map(len, lines)) != {len(header)}:
                    i, n = next((i, len(line)) for i, line in enumerate(lines) if len(line) != len(header))
                    raise DataError(
                        f"every row of {path} must have {len(header)} columns, row {first + i} has {n}; correct it"
                    )
                by_column = list(zip(*lines, strict=True))
                yield first, {name: by_column[place] for name, place in places.items()}, {}
                first += len(lines)
    except FileNotFoundError:
        raise DataError(f"the table {path} is missing; put the file there or name another") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8, byte {error.start} is not; convert it") from None
    except csv.Error as error:
        raise DataError(f"{path} must be well formed, line {reader.line_num} is not ({error}); correct it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} must be a whole gzip file, and is not ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"the table {path} cannot be read ({error.strerror or error}); check it") from None


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == PACKED:
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def _parquet(path: Path, columns: Sequence[str], rows: int, lists: Collection[str]) -> Iterator[Chunk]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"reading {path.name} needs pyarrow, which is missing; pip install 'layersearch[parquet]' or give a CSV"
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        _places(path, columns, file.schema_arrow.names)
        nested = [name for name in columns if _is_list(pyarrow.types, file.schema_arrow.field(name).type)]
        for name in nested:
            if name not in lists:
                raise DataError(
                    f"column '{name}' of {path.name} must have single values, it has lists; make it the sequence"
                )
        first = 1
        for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
            texts: dict[str, list[str]] = {}
            listed: dict[str, list[list[str]]] = {}
            for name in columns:
                cells = batch.column(name).to_pylist()
                cell = functools.partial(cell_name, path, name, first)
                if name in nested:
                    listed[name] = [_list(values or (), cell(i)) for i, values in enumerate(cells)]
                else:
                    texts[name] = _texts(cells, cell)
            yield first, texts, listed
            first += batch.num_rows
    except FileNotFoundError:
        raise DataError(f"the table {path} is missing; put the file there or name another") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} must be a Parquet file, but cannot be read ({error!s:.120}); check it") from None


def _texts(cells: Sequence[object], where: Callable[[int], str]) -> list[str]:
    """Cells of Parquet as texts; ``where`` names one for messages. Raises: DataError if one is no single value."""
    texts = []
    for i, cell in enumerate(cells):
        if isinstance(cell, str):
            texts.append(cell)
        elif cell is None or cell != cell:
            texts.append("")
        elif isinstance(cell, float):
            texts.append(str(int(cell)) if cell.is_integer() and abs(cell) <= _MOST_WHOLE else str(cell))
        elif isinstance(cell, bytes):
            try:
                texts.append(cell.decode("utf-8"))
            except UnicodeDecodeError:
                raise DataError(f"{where(i)} must be UTF-8, got {cell!r:.40}; convert it") from None
        elif isinstance(cell, list | dict | tuple):
            raise DataError(f"{where(i)} must be a single value, got {cell!r:.40}; take it apart")
        else:
            texts.append(str(cell))
    return texts


def _list(values: Sequence[object], name: str) -> list[str]:
    return _texts(values, lambda _: name)


def _is_list(types: ModuleType, type_: object) -> bool:
    return any(is_kind(type_) for is_kind in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def cell_name(path: Path, column: str, first: int, i: int) -> str:
    """How messages call the cell ``i`` of a chunk that begins with row ``first``."""
    return f"column '{column}' in row {first + i} of {path.name}"


def _places(path: Path, columns: Sequence[str], header: Sequence[str]) -> dict[str, int]:
    for name in columns:
        if header.count(name) != 1:
            how = "has none" if name not in header else "has several"
            raise DataError(
                f"{path} must have one column '{name}', it {how} (of: {', '.join(header)[:300]}); correct the schema"
            )
    return {name: header.index(name) for name in columns}

"""Tables as chunks of text columns: CSV, TSV and Parquet, a bounded part in memory at a time."""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from layersearch.errors import DataError

__all__ = ["CHUNK", "Chunk", "read_chunks"]

CHUNK = 65_536
"""Rows in memory at a time."""

Chunk: TypeAlias = tuple[int, dict[str, Sequence[str]]]
"""Number of the first row (the first after the header is 1) and texts by column."""


def read_chunks(path: Path, columns: Sequence[str], rows: int = CHUNK) -> Iterator[Chunk]:
    """The named columns of a table with a header, in chunks.

    The ending tells the format: ``.csv`` (commas, cells may be quoted), ``.tsv`` or ``.txt`` or ``.inter`` (tabs, a
    quotation mark is a character as any other), ``.parquet``.

    Raises: DataError with file, row and column for a missing file or column, a broken row, an unknown ending, or
        Parquet without pyarrow.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from _parquet(path, columns, rows)
    elif ending in (".csv", ".tsv", ".txt", ".inter"):
        yield from _delimited(path, columns, rows, "," if ending == ".csv" else "\t")
    else:
        raise DataError(f"a table must end in .csv, .tsv, .txt, .inter or .parquet, got {path.name}; convert it")


def _delimited(path: Path, columns: Sequence[str], rows: int, delimiter: str) -> Iterator[Chunk]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
            header = next(reader, None)
            if header is None:
                raise DataError(f"{path} must have a header and rows, got an empty file; write them")
            places = _places(path, columns, header)
            first = 1
            while lines := list(itertools.islice(reader, rows)):
                if set(map(len, lines)) != {len(header)}:
                    i, n = next((i, len(line)) for i, line in enumerate(lines) if len(line) != len(header))
                    raise DataError(
                        f"every row of {path} must have {len(header)} columns, row {first + i} has {n}; correct it"
                    )
                by_column = list(zip(*lines, strict=True))
                yield first, {name: by_column[place] for name, place in places.items()}
                first += len(lines)
    except FileNotFoundError:
        raise DataError(f"the table {path} is missing; put the file there or name another") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8, byte {error.start} is not; convert it") from None
    except csv.Error as error:
        raise DataError(f"{path} must be well formed, line {reader.line_num} is not ({error}); correct it") from None
    except OSError as error:
        raise DataError(f"the table {path} cannot be read ({error.strerror or error}); check it") from None


def _parquet(path: Path, columns: Sequence[str], rows: int) -> Iterator[Chunk]:
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
        first = 1
        for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
            yield first, {name: _texts(batch.column(name)) for name in columns}
            first += batch.num_rows
    except FileNotFoundError:
        raise DataError(f"the table {path} is missing; put the file there or name another") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} must be a Parquet file, but cannot be read ({error!s:.120}); check it") from None


def _texts(column: "object") -> list[str]:
    """Cells as texts, an empty one for null."""
    cells = column.to_pylist()  # type: ignore[attr-defined]
    return ["" if cell is None else str(cell) for cell in cells]


def _places(path: Path, columns: Sequence[str], header: Sequence[str]) -> dict[str, int]:
    for name in columns:
        if header.count(name) != 1:
            how = "has none" if name not in header else "has several"
            raise DataError(
                f"{path} must have one column '{name}', it {how} (of: {', '.join(header)[:300]}); correct the schema"
            )
    return {name: header.index(name) for name in columns}

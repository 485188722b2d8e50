"""Where click-through data come from: a named set, or tables that the user names and describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from layersearch.errors import DataError, RecipeError
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.tasks.ctr.data import CTRData
from layersearch.spaces.tasks.ctr.libsvm import read_libsvm_parts
from layersearch.spaces.tasks.ctr.prepare import read_tables
from layersearch.spaces.tasks.ctr.prepared import CTR_SETS, load_ctr
from layersearch.spaces.tasks.ctr.schema import Schema
from layersearch.spaces.tasks.ctr.tables import DELIMITED, PACKED, ending_of

__all__ = ["ENDINGS", "LIBSVM", "has_history", "is_file", "load_source", "read_schema"]

LIBSVM = (".libsvm", ".libfm", ".svm")
ENDINGS = (*DELIMITED, *(ending + PACKED for ending in DELIMITED), ".parquet", *LIBSVM)
"""Of files that are read as tables or as rows of indices; any other name is that of a set."""

MOST_SCHEMA_BYTES = 1_000_000


def is_file(data: str) -> bool:
    """Whether ``data`` names a file. Raises: UnknownNameError if it is neither a file nor a set."""
    if data in CTR_SETS:
        return False
    if ending_of(Path(data)) in ENDINGS:
        return True
    raise unknown_name("data set", data, [*CTR_SETS, *(f"FILE{ending}" for ending in (".csv", ".parquet", ".libsvm"))])


def read_schema(value: object) -> dict[str, Any]:
    """The schema of a recipe as plain data, or of the YAML file whose path it is. Raises: RecipeError."""
    if isinstance(value, Mapping):
        Schema.parse(value)
        return dict(value)
    if not isinstance(value, str) or not value:
        raise RecipeError(f"task.schema must be a mapping or the path of a YAML file, got {value!r:.40}; give one")
    path = Path(value).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(MOST_SCHEMA_BYTES + 1)
        if len(content) > MOST_SCHEMA_BYTES:
            raise RecipeError(f"a schema must have at most {MOST_SCHEMA_BYTES:,} bytes, {path} has more; shorten it")
        text = content.decode("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise RecipeError(f"the schema {path} must not have references (*name), it has some; write them out")
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise RecipeError(f"the schema {path} cannot be read ({reason}); check task.schema") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "something" if mark is None else f"line {mark.line + 1}"
        raise RecipeError(f"the schema {path} must be plain YAML, and {where} is not; correct it") from None
    Schema.parse(found)
    return dict(found)


def has_history(data: str, schema: Mapping[str, Any] | None) -> bool:
    """Whether rows have a sequence, told before anything is read."""
    if data in CTR_SETS:
        return CTR_SETS[data].has_history
    return schema is not None and Schema.parse(schema).sequence is not None


def load_source(
    data: str,
    data_dir: Path | None = None,
    *,
    seed: int = 0,
    schema: Mapping[str, Any] | None = None,
    validation: str | None = None,
    test: str | None = None,
    cache: Path | None = None,
    content: str | None = None,
) -> CTRData:
    """Reads a set, or a file.

    Args:
        data: a name of ``CTR_SETS``, or the path of a table or libsvm file; a path is looked for as it is, then in
            ``data_dir``.
        seed: of a set that is made, and of the split of a table.
        schema: of a table; see ``Schema.parse``.
        validation, test: files of those parts; without them a table is split at random, 8 : 1 : 1.
        cache, content: see ``read_tables``.
    Raises: DataError, RecipeError with one sentence.
    """
    if not is_file(data):
        return load_ctr(data, data_dir, seed)
    files = {"train": data, "validation": validation, "test": test}
    named = {part: _found(name, data_dir) for part, name in files.items() if name is not None}
    if len(named) == 2:
        missing = next(part for part in files if part not in named)
        raise DataError(f"files must be given for validation and test or for neither, got none for {missing}; add it")
    name = Path(data).name[: -len(ending_of(Path(data)))]
    if Path(data).suffix.lower() in LIBSVM:
        if len(named) < 3:
            raise DataError(f"{data} must come with files for validation and test; give task.validation and task.test")
        return read_libsvm_parts(named, name, content)
    if schema is None:
        raise RecipeError(
            f"the columns of {data} must be described, got no schema; give --set task.schema=FILE.yaml with label and "
            "columns"
        )
    files_of = named if len(named) == 3 else named["train"]
    return read_tables(files_of, Schema.parse(schema), cache=cache, seed=seed, name=name, content=content)


def _found(name: str, data_dir: Path | None) -> Path:
    """The file as it is named, or in the data folder; as it is named if it is in neither, for the reader to refuse."""
    path = Path(name)
    if not path.is_absolute() and not path.exists() and data_dir is not None and (data_dir / path).exists():
        return data_dir / path
    return path

"""What the columns of a table are: said by the user, checked before anything is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from layersearch.errors import RecipeError
from layersearch.primitives.registry import unknown_name

__all__ = ["Column", "Schema"]

_KINDS = ("categorical", "numeric", "sequence")


@dataclass(frozen=True)
class Column:
    """A column that becomes a field.

    Args:
        name: in the header of the file.
        kind: ``categorical``: every text is a value. ``numeric``: numbers, by quantiles of the train rows in ``bins``
            values; a missing, empty or NaN one is a value of its own. ``sequence``: texts of column ``of``, most recent
            last, with ``separator`` between, or lists in Parquet; its last ``length`` are kept, the history of a row.
        min_count: values that occur less often in the training rows count as unknown.
    """

    name: str
    kind: Literal["categorical", "numeric", "sequence"] = "categorical"
    bins: int = 32
    min_count: int = 1
    of: str = ""
    separator: str = "|"
    length: int = 50

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise unknown_name(f"kind of column '{self.name}'", str(self.kind), list(_KINDS))
        for key, low, high in (("bins", 2, 65_536), ("min_count", 1, 10**9), ("length", 1, 10_000)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise RecipeError(
                    f"{key} of column '{self.name}' must be in [{low}, {high}], got {value!r:.40}; change it"
                )
        if self.kind == "sequence" and not (self.of and self.separator):
            raise RecipeError(f"sequence column '{self.name}' must name the column its values are of; add of: COLUMN")


@dataclass(frozen=True)
class Schema:
    """The columns of a table.

    Args:
        label: column of clicks: 0 or 1, false or true, or a number that is a click from ``positive_from`` on.
        columns: those that become fields, in order, and at most one sequence.
        positive_from: None for labels that are 0 and 1 (or -1 and 1).
        missing: texts that stand for no value; they become one value of their field, also within a sequence. A sequence
            that is one of them is empty.
    Raises: RecipeError, UnknownNameError.
    """

    label: str
    columns: tuple[Column, ...]
    positive_from: float | None = None
    missing: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names) or self.label in names:
            raise RecipeError(
                f"columns of a schema must be different, got {', '.join([self.label, *names])}; name each once"
            )
        if len(self.fields) < 2:
            raise RecipeError(f"a schema must have at least 2 fields, got {len(self.fields)}; add columns")
        sequences = [column for column in self.columns if column.kind == "sequence"]
        if len(sequences) > 1:
            raise RecipeError(f"a schema must have at most one sequence, got {len(sequences)}; leave out the others")
        for column in sequences:
            categorical = [c.name for c in self.fields if c.kind == "categorical"]
            if column.of not in categorical:
                raise unknown_name(f"column that sequence '{column.name}' is of,", column.of, sorted(categorical))

    @property
    def fields(self) -> tuple[Column, ...]:
        """Columns with one value per row."""
        return tuple(column for column in self.columns if column.kind != "sequence")

    @property
    def sequence(self) -> Column | None:
        return next((column for column in self.columns if column.kind == "sequence"), None)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Schema":
        """From plain data, as of a recipe: ``label``, ``columns``, ``positive_from`` and ``missing``."""
        if not isinstance(values, Mapping):
            raise RecipeError(f"a schema must be a mapping with label and columns, got {values!r:.40}; write one")
        known = ["label", "columns", "positive_from", "missing"]
        for key in values:
            if key not in known:
                raise unknown_name("key of a schema", str(key), known)
        label, columns = values.get("label"), values.get("columns")
        if not isinstance(label, str) or not isinstance(columns, list):
            raise RecipeError("a schema must have a label (a column) and columns (a list), got others; add them")
        made = []
        for column in columns:
            given = {"name": column} if isinstance(column, str) else column
            if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
                raise RecipeError(f"a column of a schema must be a name or a mapping with a name, got {column!r:.60}")
            for key in given:
                if key not in Column.__dataclass_fields__:
                    raise unknown_name(
                        f"key of column '{given['name']}'", str(key), sorted(Column.__dataclass_fields__)
                    )
            for key in ("of", "separator"):
                if not isinstance(given.get(key, ""), str):
                    raise RecipeError(f"{key} of column '{given['name']}' must be a text, got {given[key]!r:.40}")
            made.append(Column(**given))
        limit, missing = values.get("positive_from"), values.get("missing", [""])
        is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (is_number and abs(limit) <= 1e300):
            raise RecipeError(f"positive_from of a schema must be a finite number, got {limit!r:.40}; correct it")
        if not isinstance(missing, list) or not all(isinstance(text, str) for text in missing):
            raise RecipeError(f"missing of a schema must be a list of texts, got {missing!r:.60}; quote them")
        return cls(label, tuple(made), limit, tuple(missing))

"""A named, ordered, write-once table: the one place where a new op, space or driver is announced."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from layersearch.errors import UnknownNameError

__all__ = ["Registry", "unknown_name"]

Row = TypeVar("Row")


def unknown_name(kind: str, name: object, known: list[str]) -> UnknownNameError:
    """The error for a name that is not in ``known``: it suggests the nearest one and lists all.

    >>> print(unknown_name("op", "swsh", ["relu", "swish"]))
    unknown op 'swsh'; did you mean 'swish'? (known: relu, swish)
    >>> print(unknown_name("op", "swsh", []))
    unknown op 'swsh' (known: none)
    """
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return UnknownNameError(f"unknown {kind} '{name}'{hint} (known: {', '.join(known) or 'none'})")


class Registry(Mapping[str, Row], Generic[Row]):
    """Rows by name. Iterates in sorted order, so that nothing depends on the order of imports.

    Args:
        kind: what a row is, for messages.
        package: every public module of this package is imported on the first look-up; each adds its rows.
    Raises: UnknownNameError on an unknown name; ValueError when a name is added twice.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._rows: dict[str, Row] = {}

    def _known(self) -> dict[str, Row]:
        if self._package is not None:
            package, self._package = importlib.import_module(self._package), None
            for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
                if not module.startswith("_"):
                    importlib.import_module(f"{package.__name__}.{module}")
        return self._rows

    def add(self, name: str, row: Row) -> Row:
        if name in self._rows:
            raise ValueError(f"{self.kind} '{name}' is already registered; choose another name")
        self._rows[name] = row
        return row

    def __getitem__(self, name: str) -> Row:
        rows = self._known()
        try:
            return rows[name]
        except KeyError:
            raise unknown_name(self.kind, name, sorted(rows)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known()))

    def __len__(self) -> int:
        return len(self._known())

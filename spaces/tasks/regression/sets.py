"""Every regression target by its name, ``group:name``: functions, Feynman equations, tables."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layersearch.errors import UnknownNameError
from layersearch.spaces.tasks.functions import EQUATIONS, FUNCTIONS, Function, Sampling, sampled
from layersearch.spaces.tasks.regression.data import RegressionData
from layersearch.spaces.tasks.tabular import TABLES, Table, read_table

__all__ = ["REGRESSION_SETS", "RegressionSet", "RegressionSets", "load_regression", "unknown_set"]


@dataclass(frozen=True)
class RegressionSet:
    """What is known of a target before it is read.

    Args:
        group: ``fn``, ``feynman`` or ``uci``.
        name: within the group.
        row: that of the group's own registry.
    """

    group: str
    name: str
    row: Function | Table

    @property
    def dimension(self) -> int:
        """Number of inputs."""
        return self.row.dimension

    @property
    def splits(self) -> int:
        """Number of published splits; 0 where points are drawn."""
        return self.row.splits if isinstance(self.row, Table) else 0

    @property
    def about(self) -> str:
        """The formula, or what is predicted."""
        return self.row.target if isinstance(self.row, Table) else self.row.formula

    def read(self, data_dir: Path | None, sampling: Sampling, split: int) -> RegressionData:
        """Raises: DataError in one sentence."""
        full = f"{self.group}:{self.name}"
        if isinstance(self.row, Table):
            (x, y), (test_x, test_y) = read_table(self.name, data_dir, split)
            return RegressionData(x, y, test_x, test_y, np.zeros((0, self.dimension)), full)
        (x, y), (test_x, test_y) = sampled(full, self.row, sampling)
        return RegressionData(x, y, test_x, test_y, np.array(self.row.domain).T.copy(), full)


class RegressionSets(Mapping[str, RegressionSet]):
    """All groups as one table. Iterates group by group.

    Raises: UnknownNameError on an unknown name, with the nearest ones; the names are too many to list.
    """

    def __init__(self, groups: Mapping[str, Mapping[str, Function] | Mapping[str, Table]]) -> None:
        self._groups = groups

    def __getitem__(self, name: str) -> RegressionSet:
        group, _, rest = name.partition(":")
        rows = self._groups.get(group)
        if rows is None or rest not in rows:
            raise unknown_set(name, list(self), self.summary().values())
        return RegressionSet(group, rest, rows[rest])

    def __contains__(self, name: object) -> bool:
        group, _, rest = str(name).partition(":")
        return rest in self._groups.get(group, {})

    def __iter__(self) -> Iterator[str]:
        return (f"{group}:{name}" for group, rows in self._groups.items() for name in rows)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._groups.values())

    def summary(self) -> dict[str, str]:
        """One short text per group, in place of the list of its names."""
        return {
            "fn": "fn:f1 … f5, fn:allkan-01 … 18, fn:r1 … r7",
            "feynman": f"feynman:NAME of {len(self._groups['feynman'])} equations, as feynman:I.6.2",
            "uci": f"uci:{', '.join(self._groups['uci'])}",
        }


def unknown_set(name: str, known: Sequence[str], summary: Iterable[str]) -> UnknownNameError:
    """What is said of a name that is not ``known``: the nearest ones, and a ``summary`` of all."""
    near = _near(name, known)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return UnknownNameError(f"unknown data set '{name}'{hint} (known: {'; '.join(summary)})")


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Close misses. What a name shares with others by its group alone makes it near to none."""
    group, colon, rest = name.partition(":")
    of_group = [full.removeprefix(f"{group}:") for full in known if colon and full.startswith(f"{group}:")]
    if of_group:
        return [f"{group}:{n}" for n in difflib.get_close_matches(rest, of_group, n=3, cutoff=0.5)]
    without_group = [full for full in known if full.endswith(f":{name}")]
    return without_group or difflib.get_close_matches(name, known, n=3, cutoff=0.75)


REGRESSION_SETS = RegressionSets({"fn": FUNCTIONS, "feynman": EQUATIONS, "uci": TABLES})


def load_regression(
    name: str, data_dir: Path | None = None, sampling: Sampling | None = None, split: int = 0
) -> RegressionData:
    """Reads a table from ``data_dir``, the only place searched, or draws points of a function.

    Raises: UnknownNameError for a name not in ``REGRESSION_SETS``; DataError if files are missing or broken.
    """
    return REGRESSION_SETS[name].read(data_dir, sampling or Sampling(), split)

"""What a target function is: one row with its formula, domain and source."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from layersearch.primitives.registry import Registry

__all__ = ["FUNCTIONS", "Columns", "Floats", "Function"]

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = Callable[..., Floats]
"""One array ``[N]`` per variable -> ``[N]``."""


@dataclass(frozen=True)
class Function:
    """A target on a box.

    Args:
        formula: as text, in the names of the variables.
        domain: lower and upper end of each variable, in the order in which ``of`` takes them.
        of: the function itself, in float64.
        kind: what it is there for, e.g. ``discontinuous``.
        source: where it comes from.
        noise: standard deviation of normal noise on all observed values; test values are without.
        test_grid: points per axis of the source's test grid; random points if ``None``.
    """

    formula: str
    domain: tuple[tuple[float, float], ...]
    of: Columns
    kind: str
    source: str
    noise: float = 0.0
    test_grid: int | None = None

    @property
    def dimension(self) -> int:
        """Number of variables."""
        return len(self.domain)

    def __call__(self, points: Floats) -> Floats:
        """``[N, d] -> [N]``."""
        values: Floats = np.asarray(self.of(*points.T), dtype=np.float64)
        return values


FUNCTIONS: Registry[Function] = Registry("function", package="layersearch.spaces.tasks.functions.suites")
"""By the name after ``fn:``."""

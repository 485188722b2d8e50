"""How a tensor with grouped channels lies in memory, and what that asks of a kernel."""

from dataclasses import dataclass

__all__ = ["Degrees", "Extents"]


@dataclass(frozen=True)
class Degrees:
    """``P(x) = sum_{i<=m} a_i x^i``, ``x Q(x) = sum_{1<=j<=n} b_j x^j``."""

    m: int
    n: int

    def __post_init__(self) -> None:
        if not (1 <= self.m <= 32 and 1 <= self.n <= 32):
            raise ValueError(f"degrees must be within 1 and 32, got {self.m} and {self.n}")

    @property
    def count(self) -> int:
        """Coefficients of one group, those shared by all groups included."""
        return self.m + 1 + self.n


@dataclass(frozen=True)
class Extents:
    """Memory ``[outer, groups, inner]`` without gaps: ``inner`` elements in a row belong to one group."""

    outer: int
    groups: int
    inner: int

    @property
    def total(self) -> int:
        return self.outer * self.groups * self.inner

    @property
    def row(self) -> int:
        """Elements after which the groups begin anew."""
        return self.groups * self.inner

    @property
    def has_long_runs(self) -> bool:
        """Whether a group is summed along its run; short runs are summed lane by lane over the rows instead."""
        return self.inner >= 512 or self.outer < 8

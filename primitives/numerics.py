"""The numbers that decide how a graph behaves near its poles; part of the genome, equal in every lowering."""

from dataclasses import asdict, dataclass
from typing import Any

from layersearch.errors import GenomeError

__all__ = ["EXACT", "Numerics"]


@dataclass(frozen=True)
class Numerics:
    """Guards and group rule of a graph.

    Args:
        eps: added inside every root, to a variance or mean square (1e-5 in the authors' released code).
        div_eps: moves a denominator away from zero, keeping its sign; 0 divides exactly.
        log_eps: added to the magnitude inside the logarithm; 0 is the bare logarithm.
        groups: upper limit of the number of groups; the largest divisor of C that does not exceed it is used.
    """

    eps: float = 1e-5
    div_eps: float = 1e-5
    log_eps: float = 1e-5
    groups: int = 32

    def __post_init__(self) -> None:
        for name in ("eps", "div_eps", "log_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise GenomeError(
                    f"numerics.{name} must be a number in [0, 1], got {value!r:.60}; use for example 1e-5"
                )
        if self.eps == 0:
            raise GenomeError("numerics.eps must be positive, got 0: roots would have infinite gradients; use 1e-5")
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or not 1 <= self.groups <= 65536:
            raise GenomeError(f"numerics.groups must be a whole number in [1, 65536], got {self.groups!r:.60}; use 32")

    def guard(self, name: str | None) -> float:
        """Value of the field that an op's ``guard`` names; 0 for ops without one."""
        return float(getattr(self, name)) if name else 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


EXACT = Numerics(div_eps=0.0, log_eps=0.0)
"""No guard on divisions and logarithms: published layers as published."""

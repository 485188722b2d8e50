"""The knobs of pools: the part of a run's settings that its networks have on any data."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from layersearch.primitives.basis import BASES
from layersearch.primitives.layers.selection import GATE_KINDS
from layersearch.spaces.skan.choices import MAX_POOL
from layersearch.spaces.skan.generate import Generator
from layersearch.spaces.skan.genome import fault_of_shares
from layersearch.spaces.validation import Settings, all_known

__all__ = ["PoolSettings"]

DEFAULT_BASES = (
    "bspline",
    "chebyshev",
    "fourier",
    "gram",
    "mexican_hat",
    "piecewise_linear",
    "rational",
    "rbf",
)


class PoolSettings(Settings):
    """What pools are made of, and how nodes may choose.

    Args:
        bases: names of ``BASES``, at least two.
        smallest, largest: number of bases of a pool.
        gates: kinds of gates, of ``GATE_KINDS``.
        shares: of the full, the selective and the pruning stage, with sum 1; searched if none are given.
    """

    bases: tuple[str, ...] = DEFAULT_BASES
    smallest: int = Field(2, ge=2, le=MAX_POOL)
    largest: int = Field(4, ge=2, le=MAX_POOL)
    gates: tuple[str, ...] = Field(GATE_KINDS, min_length=1)
    shares: tuple[float, float, float] | None = None

    @field_validator("bases")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(all_known(names, "basis", list(BASES)))))

    @field_validator("gates")
    @classmethod
    def _kinds(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(all_known(names, "kind of gates", GATE_KINDS))))

    @field_validator("shares")
    @classmethod
    def _of_one(cls, shares: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        fault = None if shares is None else fault_of_shares(shares)
        if fault is not None:
            raise ValueError(f"pool.{fault}")
        return shares

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if len(self.bases) < self.smallest:
            raise ValueError(
                f"pool.bases must have at least {self.smallest} bases, got {', '.join(self.bases) or 'none'}; networks "
                "of one are those of the space kan"
            )
        if self.smallest > self.largest:
            raise ValueError(f"pool.smallest must be at most pool.largest, got {self.smallest} > {self.largest}")
        return self

    def generator(self, inits: tuple[str, ...], max_depth: int, min_width: int, max_width: int) -> Generator:
        """Makes genomes of these pools and starts, with hidden layers within the limits."""
        largest = min(self.largest, len(self.bases))
        return Generator(
            self.bases, self.smallest, largest, self.gates, inits, self.shares, max_depth, min_width, max_width
        )

    def described(self) -> tuple[tuple[str, str], ...]:
        """What ``Space.describe`` says of pools and stages."""
        largest = min(self.largest, len(self.bases))
        fixed = "/".join(f"{100 * share:g}" for share in self.shares or ())
        shares = f"{fixed} % of the steps" if fixed else "searched"
        return (
            ("pools", f"{self.smallest} to {largest} of {', '.join(self.bases)}"),
            ("stages", f"full, selective, pruning: {shares}"),
        )

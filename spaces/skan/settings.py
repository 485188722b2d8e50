"""Every knob of the skan space, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from layersearch.primitives.basis import BASES
from layersearch.primitives.layers.selection import GATE_KINDS
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan.genome import MAX_DEPTH, MAX_WIDTH
from layersearch.spaces.objectives import legal
from layersearch.spaces.skan.choices import MAX_POOL
from layersearch.spaces.skan.genome import fault_of_shares
from layersearch.spaces.skan.published import PUBLISHED
from layersearch.spaces.tasks.regression.presets import preset as regression_preset
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.validation import all_known, checked, override, torch_alone

__all__ = ["FunnelSettings", "NetworkSettings", "PoolSettings", "SKANSettings", "effective", "parse"]

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


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PoolSettings(_Settings):
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
        for name in names:
            if name not in BASES:
                raise ValueError(str(unknown_name("basis", name, list(BASES))))
        return tuple(sorted(set(names)))

    @field_validator("gates")
    @classmethod
    def _kinds(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in GATE_KINDS:
                raise ValueError(str(unknown_name("kind of gates", name, list(GATE_KINDS))))
        return tuple(sorted(set(names)))

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


class NetworkSettings(_Settings):
    """Which networks are searched.

    Args:
        max_depth: most hidden layers.
        min_width, max_width: of a hidden layer.
        most_parameters: networks that may be larger once they are pruned are screened out.
        reference: hidden layers of the designs by name, as seeds and baselines.
    """

    max_depth: int = Field(3, ge=0, le=MAX_DEPTH)
    min_width: int = Field(2, ge=1, le=MAX_WIDTH)
    max_width: int = Field(16, ge=1, le=MAX_WIDTH)
    most_parameters: int = Field(5000, ge=1, le=100_000_000)
    reference: tuple[int, ...] = (8, 8)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.min_width > self.max_width:
            raise ValueError(
                f"network.min_width must be at most network.max_width, got {self.min_width} > {self.max_width}"
            )
        if len(self.reference) > MAX_DEPTH or not all(2 <= width <= MAX_WIDTH for width in self.reference):
            shown = ", ".join(map(str, self.reference))
            raise ValueError(
                f"network.reference must be at most {MAX_DEPTH} widths in [2, {MAX_WIDTH}], got {shown or 'none'}"
            )
        return self


class FunnelSettings(_Settings):
    """Limits of the rejecting stages, and what is measured; as in kan.

    Args:
        objectives: ``rmse`` and what the pruned network costs, of ``COSTS``. Candidates are ordered by
            ``rmse``.
        quality_rmse: after the quality steps the validation error must be below this, in standard deviations of the
            target.
        rerank_seeds: trainings when the best candidates and the baselines are ranked again.
    """

    objectives: tuple[str, ...] = ("rmse", "parameters")
    quality_rmse: float = Field(1.5, gt=0)
    rerank_seeds: int = Field(2, ge=1, le=20)

    @field_validator("objectives")
    @classmethod
    def _legal(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return legal(names, "rmse")


class SKANSettings(_Settings):
    """All of it. ``seed_layers`` are the designs a population may start from, in order of preference."""

    seed_layers: tuple[str, ...] = tuple(PUBLISHED)
    data_dir: str | None = None
    pool: PoolSettings = PoolSettings()
    network: NetworkSettings = NetworkSettings()
    funnel: FunnelSettings = FunnelSettings()
    task: RegressionSettings

    @field_validator("seed_layers")
    @classmethod
    def _published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return all_known("design", names, list(PUBLISHED))

    @property
    def data_path(self) -> Path | None:
        return None if self.data_dir is None else Path(self.data_dir)

    @property
    def in_features(self) -> int:
        """Inputs of the networks; known from the name of the data alone."""
        return REGRESSION_SETS[self.task.data].dimension


_SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "smoke": ({"largest": 4}, {"max_depth": 2, "max_width": 12, "most_parameters": 3000}),
    "small": ({"largest": 5}, {"max_depth": 3, "max_width": 32, "most_parameters": 20_000}),
    "paper": ({"largest": 6}, {"max_depth": 4, "max_width": 64, "most_parameters": 100_000}),
}


def effective(
    series: str | None,
    data: str,
    data_dir: str | None,
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    seed_layers: Sequence[str] | None = None,
    lowering: str = "torch",
) -> JsonObject:
    """Settings of a run as plain data: the preset's, with ``--set`` overrides applied.

    Args:
        series: the space has none.
        data: a name of ``REGRESSION_SETS``.
        data_dir: folder of the data sets, if the set needs one.
        preset: ``smoke``, ``small`` or ``paper``.
        overrides: values by dotted key, e.g. ``{"pool.largest": 3, "task.batch": 64}``.
        seed_layers: designs to start from, by name.
        lowering: ``auto`` or ``torch``, the only one there is here.
    Raises: RecipeError or UnknownNameError with one sentence for an unknown name or an illegal value.
    """
    torch_alone("skan", series, lowering)
    pool, network = _SIZES[preset]
    base: JsonObject = {
        "seed_layers": list(PUBLISHED if seed_layers is None else seed_layers),
        "data_dir": data_dir,
        "pool": PoolSettings(**pool).model_dump(mode="json"),
        "network": NetworkSettings(**network).model_dump(mode="json"),
        "funnel": FunnelSettings().model_dump(mode="json"),
        "task": regression_preset(preset, data).model_dump(mode="json"),
    }
    override(base, ("pool", "network", "funnel", "task"), overrides)
    return parse(base).model_dump(mode="json")


def parse(settings: JsonObject) -> SKANSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(SKANSettings, settings)

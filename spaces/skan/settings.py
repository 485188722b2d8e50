"""Every knob of the skan space, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from layersearch.primitives.basis import BASES
from layersearch.primitives.layers.selection import GATE_KINDS
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.fidelity import FidelitySettings, SteppedSettings
from layersearch.spaces.kan.settings import FunnelSettings, WidthSettings
from layersearch.spaces.skan.choices import MAX_POOL
from layersearch.spaces.skan.genome import fault_of_shares
from layersearch.spaces.skan.published import PUBLISHED
from layersearch.spaces.tasks.regression.presets import preset as regression_preset
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.validation import RunSettings, Settings, all_known, checked, override, torch_alone

__all__ = ["PoolSettings", "SKANSettings", "effective", "parse"]

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


class SKANSettings(RunSettings, SteppedSettings):
    """All of it. ``seed_layers`` are the designs a population may start from, in order of preference.

    The funnel and the limits of widths are those of kan; costs and parameters are those of the pruned network.
    """

    seed_layers: tuple[str, ...] = tuple(PUBLISHED)
    pool: PoolSettings = PoolSettings()
    network: WidthSettings = WidthSettings()
    funnel: FunnelSettings = FunnelSettings()
    fidelity: FidelitySettings = FidelitySettings()
    task: RegressionSettings

    @field_validator("seed_layers")
    @classmethod
    def _published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return all_known(names, "design", list(PUBLISHED))

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
        "network": WidthSettings(**network).model_dump(mode="json"),
        "funnel": FunnelSettings().model_dump(mode="json"),
        "fidelity": FidelitySettings().model_dump(mode="json"),
        "task": regression_preset(preset, data).model_dump(mode="json"),
    }
    override(base, ("pool", "network", "funnel", "fidelity", "task"), overrides)
    return parse(base).model_dump(mode="json")


def parse(settings: JsonObject) -> SKANSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(SKANSettings, settings)

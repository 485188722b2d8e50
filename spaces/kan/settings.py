"""Every knob of the kan space, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from layersearch.primitives.basis import BASES
from layersearch.primitives.layers.init import INITS
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.fidelity import FidelitySettings, SteppedSettings
from layersearch.spaces.kan.data import is_image_set
from layersearch.spaces.kan.genome import MAX_DEPTH, MAX_WIDTH
from layersearch.spaces.kan.images import settings as images
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.kan.starts import StartSettings
from layersearch.spaces.objectives import legal
from layersearch.spaces.tasks.regression.presets import preset as regression_preset
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.validation import RunSettings, Settings, all_known, checked, override, torch_alone

__all__ = ["DEFAULT_SEEDS", "FunnelSettings", "KANSettings", "NetworkSettings", "WidthSettings", "effective", "parse"]

DEFAULT_SEEDS = ("efficient-kan", "fastkan", "chebykan", "kat")


class WidthSettings(StartSettings):
    """Which widths and starts are searched.

    Args:
        max_depth: most hidden layers.
        min_width, max_width: of a hidden layer.
        most_parameters: larger networks are screened out.
        reference: hidden layers of the designs by name, as seeds and baselines.
    """

    max_depth: int = Field(3, ge=0, le=MAX_DEPTH)
    min_width: int = Field(2, ge=1, le=MAX_WIDTH)
    max_width: int = Field(16, ge=1, le=MAX_WIDTH)
    most_parameters: int = Field(5000, ge=1, le=100_000_000)
    reference: tuple[int, ...] = (8, 8)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        least, most, reference = self.min_width, self.max_width, self.reference
        if least > most:
            raise ValueError(f"network.min_width must be at most network.max_width, got {least} > {most}")
        if len(reference) > MAX_DEPTH or not all(2 <= width <= MAX_WIDTH for width in reference):
            shown = ", ".join(map(str, reference)) or "none"
            raise ValueError(f"network.reference must be at most {MAX_DEPTH} widths in [2, {MAX_WIDTH}], got {shown}")
        return self


class NetworkSettings(WidthSettings):
    """Which networks are searched: widths, starts, and ``bases``, names of ``BASES``; all of them by default."""

    bases: tuple[str, ...] = Field(default_factory=lambda: tuple(BASES), min_length=1)

    @field_validator("bases")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(all_known(names, "basis", list(BASES)))))


class FunnelSettings(Settings):
    """Limits of the rejecting stages, and what is measured.

    Args:
        objectives: ``rmse`` and what networks cost, of ``COSTS``. Candidates are ordered by ``rmse``; with
            ``parameters`` the smaller of two equally good ones dominates, and evolution keeps small ones.
        quality_rmse: after the quality steps the validation error must be below this, in standard deviations of the
            target: 1 is what its mean achieves. On 17 functions and tables every published design was below 1.16 after
            the quality steps of ``smoke`` (one seed, 2026-11-25).
        rerank_seeds: trainings when the best candidates and the baselines are ranked again.
    """

    objectives: tuple[str, ...] = ("rmse", "parameters")
    quality_rmse: float = Field(1.5, gt=0)
    rerank_seeds: int = Field(2, ge=1, le=20)

    @field_validator("objectives")
    @classmethod
    def _legal(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return legal(names, "rmse")


class KANSettings(RunSettings, SteppedSettings):
    """All of it. ``seed_layers`` are the published designs a population may start from, in order of preference."""

    seed_layers: tuple[str, ...] = DEFAULT_SEEDS
    network: NetworkSettings = NetworkSettings()
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


_NETWORKS: dict[str, dict[str, Any]] = {
    "smoke": {"max_depth": 2, "max_width": 16, "most_parameters": 3000},
    "small": {"max_depth": 3, "max_width": 32, "most_parameters": 20_000},
    "paper": {"max_depth": 4, "max_width": 64, "most_parameters": 100_000},
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
        data: a name of ``DATA_SETS``; one of images gives ``images.settings.ImageKANSettings``.
        data_dir: folder of the data sets, if the set needs one.
        preset: ``smoke``, ``small`` or ``paper``.
        overrides: values by dotted key, e.g. ``{"network.max_width": 32, "task.batch": 64}``.
        seed_layers: published designs to start from, by name.
        lowering: ``auto`` or ``torch``, the only one there is here.
    Raises: RecipeError or UnknownNameError with one sentence for an unknown name or an illegal value.
    """
    torch_alone("kan", series, lowering)
    if is_image_set(data):
        return images.effective(data, data_dir, preset, overrides, seed_layers)
    base: JsonObject = {
        "seed_layers": list(DEFAULT_SEEDS if seed_layers is None else seed_layers),
        "data_dir": data_dir,
        "network": NetworkSettings(inits=INITS, **_NETWORKS[preset]).model_dump(mode="json"),
        "funnel": FunnelSettings().model_dump(mode="json"),
        "fidelity": FidelitySettings().model_dump(mode="json"),
        "task": regression_preset(preset, data).model_dump(mode="json"),
    }
    override(base, ("network", "funnel", "fidelity", "task"), overrides)
    return parse(base).model_dump(mode="json")


def parse(settings: JsonObject) -> KANSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(KANSettings, settings)

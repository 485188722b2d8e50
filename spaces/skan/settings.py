"""Every knob of the skan space, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import field_validator

from layersearch.primitives.layers.init import INITS
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.fidelity import FidelitySettings, SteppedSettings
from layersearch.spaces.kan.data import is_image_set
from layersearch.spaces.kan.settings import FunnelSettings, WidthSettings
from layersearch.spaces.skan.images import settings as images
from layersearch.spaces.skan.pool import PoolSettings
from layersearch.spaces.skan.published import PUBLISHED
from layersearch.spaces.tasks.regression.presets import preset as regression_preset
from layersearch.spaces.tasks.regression.sets import REGRESSION_SETS
from layersearch.spaces.tasks.regression.settings import RegressionSettings
from layersearch.spaces.validation import RunSettings, all_known, checked, override, torch_alone

__all__ = ["SKANSettings", "effective", "parse"]


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
        data: a name of ``DATA_SETS``; one of images gives ``images.settings.ImageSKANSettings``.
        data_dir: folder of the data sets, if the set needs one.
        preset: ``smoke``, ``small`` or ``paper``.
        overrides: values by dotted key, e.g. ``{"pool.largest": 3, "task.batch": 64}``.
        seed_layers: designs to start from, by name.
        lowering: ``auto`` or ``torch``, the only one there is here.
    Raises: RecipeError or UnknownNameError with one sentence for an unknown name or an illegal value.
    """
    torch_alone("skan", series, lowering)
    if is_image_set(data):
        return images.effective(data, data_dir, preset, overrides, seed_layers)
    pool, network = _SIZES[preset]
    base: JsonObject = {
        "seed_layers": list(PUBLISHED if seed_layers is None else seed_layers),
        "data_dir": data_dir,
        "pool": PoolSettings(**pool).model_dump(mode="json"),
        "network": WidthSettings(inits=INITS, **network).model_dump(mode="json"),
        "funnel": FunnelSettings().model_dump(mode="json"),
        "fidelity": FidelitySettings().model_dump(mode="json"),
        "task": regression_preset(preset, data).model_dump(mode="json"),
    }
    override(base, ("pool", "network", "funnel", "fidelity", "task"), overrides)
    return parse(base).model_dump(mode="json")


def parse(settings: JsonObject) -> SKANSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(SKANSettings, settings)

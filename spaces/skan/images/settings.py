"""Every knob of the skan space on images, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import field_validator

from layersearch.primitives.layers.init import INITS
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.fidelity import FidelitySettings
from layersearch.spaces.kan.images.presets import NETWORKS, recipe
from layersearch.spaces.kan.images.settings import (
    ConvNetworkSettings,
    ImageFunnelSettings,
    ImageRunSettings,
    ImageTaskSettings,
)
from layersearch.spaces.skan.images.published import DESIGNS
from layersearch.spaces.skan.pool import PoolSettings
from layersearch.spaces.validation import all_known, checked, override

__all__ = ["ImageSKANSettings", "effective", "parse"]


class ImageSKANSettings(ImageRunSettings):
    """All of it. ``seed_layers`` are the designs a population may start from, in order of preference.

    Funnel, task and limits are those of kan's convolutions; parameters are those of the pruned network, operations the
    mean over the steps of a training.
    """

    seed_layers: tuple[str, ...] = DESIGNS
    pool: PoolSettings = PoolSettings()

    @field_validator("seed_layers")
    @classmethod
    def _published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return all_known(names, "design", list(DESIGNS))


_LARGEST_POOL = {"smoke": 4, "small": 5, "paper": 6}
_MOST_OPERATIONS = {"smoke": 16_000_000, "small": 30_000_000, "paper": 1_000_000_000}
"""Twice those of kan: until the pruning all spaces of a pool are computed."""


def effective(
    data: str,
    data_dir: str | None,
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    seed_layers: Sequence[str] | None = None,
) -> JsonObject:
    """Settings of a run as plain data: the preset's, with ``--set`` overrides applied; see ``skan.settings``."""
    of_kan = {name: value for name, value in NETWORKS[preset].items() if name in ConvNetworkSettings.model_fields}
    network = ConvNetworkSettings(inits=INITS, **of_kan | {"most_operations": _MOST_OPERATIONS[preset]})
    base: JsonObject = {
        "seed_layers": list(DESIGNS if seed_layers is None else seed_layers),
        "data_dir": data_dir,
        "pool": PoolSettings(largest=_LARGEST_POOL[preset]).model_dump(mode="json"),
        "network": network.model_dump(mode="json"),
        "funnel": ImageFunnelSettings().model_dump(mode="json"),
        "fidelity": FidelitySettings().model_dump(mode="json"),
        "task": ImageTaskSettings(**recipe(preset, data)).model_dump(mode="json"),
    }
    override(base, ("pool", "network", "funnel", "fidelity", "task"), overrides)
    return parse(base).model_dump(mode="json")


def parse(settings: JsonObject) -> ImageSKANSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(ImageSKANSettings, settings)

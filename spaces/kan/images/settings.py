"""Every knob of the kan space on images, with the effective values written into the recipe of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from layersearch.primitives.basis import BASES
from layersearch.primitives.layers.init import INITS
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.fidelity import FidelitySettings, SteppedSettings
from layersearch.spaces.kan.images.choices import ShapeLimits
from layersearch.spaces.kan.images.genome import KINDS, MAX_BLOCKS, MAX_DEPTH, MAX_WIDTH
from layersearch.spaces.kan.images.presets import NETWORKS, recipe, reference_patch
from layersearch.spaces.kan.images.published import DESIGNS
from layersearch.spaces.kan.starts import StartSettings
from layersearch.spaces.objectives import legal
from layersearch.spaces.tasks.images.data import IMAGE_SETS
from layersearch.spaces.tasks.images.models import ConvShape, ViTShape
from layersearch.spaces.tasks.images.settings import ImageRecipe, OptimizerName
from layersearch.spaces.validation import RunSettings, Settings, all_known, checked, override

__all__ = [
    "DEFAULT_SEEDS",
    "ConvNetworkSettings",
    "ImageFunnelSettings",
    "ImageKANSettings",
    "ImageNetworkSettings",
    "ImageRunSettings",
    "ImageTaskSettings",
    "ReferenceViT",
    "effective",
    "parse",
]

DEFAULT_SEEDS = ("kan-conv", "fastkan-conv", "kagn", "kat-vit")


class ReferenceViT(Settings):
    """Sizes of the published transformers, as in ``ViTShape``."""

    width: int = Field(ge=1, le=MAX_WIDTH)
    depth: int = Field(ge=1, le=MAX_DEPTH)
    heads: int = Field(ge=1, le=64)
    hidden: int = Field(ge=1, le=4 * MAX_WIDTH)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"network.reference_vit must have heads that divide its width {self.width}, got {self.heads}"
            )
        return self


class ConvNetworkSettings(StartSettings):
    """Which convolutional networks, and starts of their weights, are searched.

    Args:
        max_channels, max_blocks: there are two blocks at least.
        most_parameters, most_operations: larger models are screened out; operations of one image, forward.
        reference_conv: sizes of the designs by name, as seeds and baselines: channels of stem and blocks.
    """

    max_channels: int = Field(ge=4, le=MAX_WIDTH)
    max_blocks: int = Field(ge=2, le=MAX_BLOCKS)
    most_parameters: int = Field(ge=1, le=100_000_000)
    most_operations: int = Field(ge=1, le=10**12)
    reference_conv: tuple[int, ...]

    @field_validator("reference_conv")
    @classmethod
    def _channels(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if not 2 <= len(widths) <= MAX_BLOCKS + 1 or not all(1 <= width <= MAX_WIDTH for width in widths):
            shown = ", ".join(map(str, widths)) or "none"
            raise ValueError(
                f"network.reference_conv must be 2 to {MAX_BLOCKS + 1} channels in [1, {MAX_WIDTH}], got {shown}"
            )
        return widths


class ImageNetworkSettings(ConvNetworkSettings):
    """Which models are searched.

    Args:
        bases: names of ``BASES``; all of them by default.
        kinds: ``conv`` (convolutional networks) and ``kat`` (transformers).
        max_width, max_depth: of transformers; their hidden layers are at most four times as wide.
        reference_vit: sizes of the published transformers.
    """

    bases: tuple[str, ...] = Field(default_factory=lambda: tuple(BASES), min_length=1)
    kinds: tuple[Literal["conv", "kat"], ...] = Field(("conv", "kat"), min_length=1)
    max_width: int = Field(ge=8, le=MAX_WIDTH)
    max_depth: int = Field(ge=1, le=MAX_DEPTH)
    reference_vit: ReferenceViT

    @field_validator("bases")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(all_known(names, "basis", list(BASES)))))

    @field_validator("kinds")
    @classmethod
    def _sorted(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if kind in names)


class ImageFunnelSettings(Settings):
    """Limits of the rejecting stage, and what is measured.

    Args:
        objectives: ``accuracy`` and what models cost, of ``COSTS``. Candidates are ordered by ``accuracy``; with
            ``parameters`` the smaller of two equally good ones dominates, and evolution keeps small ones.
        quality_chance: validation accuracy after the quality steps must reach this times chance (1 / classes): .15 on
            ten classes. The least of any baseline, three seeds each, was .37 on digits, .33 on Fashion-MNIST and .22 on
            CIFAR-10 with ``smoke``, and .52 on Fashion-MNIST with ``small`` (2026-11-25).
        rerank_seeds: trainings when the best candidates and the baselines are ranked again.
    """

    objectives: tuple[str, ...] = ("accuracy", "parameters")
    quality_chance: float = Field(1.5, ge=0)
    rerank_seeds: int = Field(2, ge=1, le=20)

    @field_validator("objectives")
    @classmethod
    def _legal(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return legal(names, "accuracy")


class ImageTaskSettings(ImageRecipe):
    """An ``ImageRecipe`` with AdamW, whose images are trained and evaluated on in one size."""

    optimizer: ClassVar[OptimizerName] = "adamw"

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if not self.crop == self.eval_size == self.image_size:
            raise ValueError(
                f"crop and eval_size must be image_size {self.image_size}, since transformers have a fixed number of "
                f"tokens, got {self.crop} and {self.eval_size}"
            )
        return self


class ImageRunSettings(RunSettings, SteppedSettings):
    """What the settings of a run on images have in every space of KANs."""

    network: ConvNetworkSettings
    funnel: ImageFunnelSettings = ImageFunnelSettings()
    fidelity: FidelitySettings = FidelitySettings()
    task: ImageTaskSettings

    @property
    def in_channels(self) -> int:
        """Of the images; known from the name of the data alone."""
        return IMAGE_SETS[self.task.data].channels

    @property
    def classes(self) -> int:
        return IMAGE_SETS[self.task.data].classes

    @property
    def limits(self) -> ShapeLimits:
        return ShapeLimits(self.task.image_size, self.network.max_channels, self.network.max_blocks)

    @property
    def reference_conv(self) -> ConvShape:
        stem, *channels = self.network.reference_conv
        return ConvShape(self.task.image_size, stem, tuple(channels), 3, "max")


class ImageKANSettings(ImageRunSettings):
    """All of it. ``seed_layers`` are the published designs a population may start from, in order of preference."""

    seed_layers: tuple[str, ...] = DEFAULT_SEEDS
    network: ImageNetworkSettings

    @field_validator("seed_layers")
    @classmethod
    def _published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return all_known(names, "design", list(DESIGNS))

    @property
    def limits(self) -> ShapeLimits:
        return replace(super().limits, max_width=self.network.max_width, max_depth=self.network.max_depth)

    @property
    def reference_vit(self) -> ViTShape:
        side = self.task.image_size
        return ViTShape(side, reference_patch(side), **self.network.reference_vit.model_dump())


def effective(
    data: str,
    data_dir: str | None,
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    seed_layers: Sequence[str] | None = None,
) -> JsonObject:
    """Settings of a run as plain data: the preset's, with ``--set`` overrides applied; see ``kan.settings``."""
    base: JsonObject = {
        "seed_layers": list(DEFAULT_SEEDS if seed_layers is None else seed_layers),
        "data_dir": data_dir,
        "network": ImageNetworkSettings(inits=INITS, **NETWORKS[preset]).model_dump(mode="json"),
        "funnel": ImageFunnelSettings().model_dump(mode="json"),
        "fidelity": FidelitySettings().model_dump(mode="json"),
        "task": ImageTaskSettings(**recipe(preset, data)).model_dump(mode="json"),
    }
    override(base, ("network", "funnel", "fidelity", "task"), overrides)
    return parse(base).model_dump(mode="json")


def parse(settings: JsonObject) -> ImageKANSettings:
    """Checked settings from plain data. Raises: RecipeError with one sentence."""
    return checked(ImageKANSettings, settings)

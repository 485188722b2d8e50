"""All that defines an image task, every value checked: a run is what its settings say, on any machine.

``ImageRecipe`` is what every space that learns from images has; ``ImageSettings`` adds the anchor networks.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from layersearch.errors import RecipeError
from layersearch.spaces.tasks.images.data import IMAGE_SETS
from layersearch.spaces.tasks.images.networks import MIN_DEPTH, MIN_SIDE, NETWORKS
from layersearch.spaces.tasks.settings import Schedule, TrainingSettings, annealed, check_rules, rules_of_parts
from layersearch.spaces.validation import Settings

__all__ = ["AnchorSettings", "ImageRecipe", "ImageSettings", "OptimizerName"]

OptimizerName = Literal["adamw", "sgd"]


class AnchorSettings(Settings):
    """An anchor network and its size: ``width`` and ``depth`` multiply the published channels and blocks."""

    model_config = ConfigDict(strict=True)

    network: str
    width: float = Field(gt=0, le=4)
    depth: float = Field(ge=MIN_DEPTH, le=4)

    @model_validator(mode="before")
    @classmethod
    def _by_key(cls, values: Any) -> Any:
        if isinstance(values, dict | cls):
            return values
        raise ValueError(
            f"an anchor must be given by its keys, as {{network: resnet, width: 0.25, depth: 1.0}}, got {values!r:.60}"
        )

    @field_validator("network")
    @classmethod
    def _known(cls, name: str) -> str:
        NETWORKS[name]
        return name


class ImageRecipe(TrainingSettings):
    """Data, parts and training of a classifier of images. Sizes are sides in pixels.

    Args:
        data: a name of ``IMAGE_SETS``.
        shrink: images are averaged over squares of this side when the task loads them.
        image_size: of the images after shrinking.
        crop, padding: training uses random crops of side ``crop`` from images with ``padding`` black pixels around.
        eval_size: side of the central part that is evaluated on.
        flip: whether training mirrors images at random.
        momentum: of SGD, or the first beta of AdamW.
        schedule: of the learning rate, over the whole horizon of a training.
        weight_decay: of weights; vectors (biases and the parameters of the layer) are never decayed.
        quality_steps, fitness_steps, rerank_steps: horizon of each stage; quality is the beginning of fitness.
        validation_fraction, holdout_fraction: of the published training set.
        validation_cap: at most so many images are evaluated in the validation part.
        split_seed: of the parts; equal for all candidates and runs to be compared.
        cuda_graphs: whether a GPU replays captured steps; results are the same.
    Raises: pydantic's ValidationError; ``parse`` and ``replace`` raise RecipeError, in one sentence.
    """

    optimizer: ClassVar[OptimizerName] = "sgd"
    """With Nesterov momentum, or AdamW; the same in all runs of a space."""
    not_of_training = frozenset(
        {
            "anchors",
            "cuda_graphs",
            "eval_batch",
            "eval_size",
            "fitness_steps",
            "quality_steps",
            "rerank_steps",
            "rerank_width",
            "validation_cap",
        }
    )

    data: str
    shrink: int = Field(default=1, ge=1, le=4)
    image_size: int = Field(ge=MIN_SIDE, le=256)
    crop: int = Field(ge=MIN_SIDE, le=256)
    padding: int = Field(default=0, ge=0, le=32)
    eval_size: int = Field(ge=MIN_SIDE, le=256)
    flip: bool
    batch: int = Field(ge=2, le=65_536)
    eval_batch: int = Field(default=512, ge=1, le=65_536)
    learning_rate: float = Field(gt=0, le=100)
    momentum: float = Field(default=0.9, gt=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    schedule: Schedule
    quality_steps: int = Field(default=100, ge=1)
    fitness_steps: int = Field(ge=1)
    rerank_steps: int = Field(ge=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    holdout_fraction: float = Field(default=0.1, gt=0, lt=1)
    validation_cap: int = Field(ge=10)
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    cuda_graphs: bool = True

    @field_validator("data")
    @classmethod
    def _known(cls, name: str) -> str:
        IMAGE_SETS[name]
        return name

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        side = IMAGE_SETS[self.data].side
        rules = [
            (side % self.shrink == 0, f"shrink must divide the side {side} of {self.data}, got {self.shrink}"),
            (
                self.image_size * self.shrink == side,
                f"image_size must be {side // self.shrink}, the side of {self.data} shrunk, got {self.image_size}",
            ),
            (
                self.crop <= self.image_size + 2 * self.padding,
                f"crop must be at most image_size + 2 * padding, got {self.crop}",
            ),
            (self.eval_size <= self.image_size, f"eval_size must be at most image_size, got {self.eval_size}"),
            *rules_of_parts(self),
        ]
        check_rules(rules)
        return self

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """See ``annealed``."""
        return annealed(self.learning_rate, self.schedule, step, total_steps)


class ImageSettings(ImageRecipe):
    """An ``ImageRecipe`` for layers, which are judged in anchor networks.

    Args:
        anchors: the networks a layer is judged in.
        rerank_width: multiplies the widths of the anchors when the best candidates are ranked again.
        groups: of group reductions; the anchors are narrower than the published networks, which use 32.
    """

    anchors: tuple[AnchorSettings, ...] = Field(min_length=1)
    rerank_width: float = Field(ge=1, le=16)
    groups: int = Field(ge=1, le=1024)
    dtype: Literal["float32"] = "float32"

    @field_validator("anchors", mode="before")
    @classmethod
    def _from_json(cls, anchors: Any) -> Any:
        return tuple(anchors) if isinstance(anchors, list) else anchors

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len(set(self.networks)) < len(self.anchors):
            raise ValueError(f"anchors must be different networks, got {', '.join(self.networks)}")
        return self

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the anchor networks, in order."""
        return tuple(anchor.network for anchor in self.anchors)

    def anchor(self, network: str) -> AnchorSettings:
        """The size of ``network``. Raises: RecipeError if it is not one of the anchors."""
        for anchor in self.anchors:
            if anchor.network == network:
                return anchor
        raise RecipeError(f"network must be one of the anchors {', '.join(self.networks)}, got '{network}'")

"""Runs the stages of the kan funnel on images in a worker: quality, fitness, re-rank, test."""

from typing import Any

from layersearch.spaces.contracts import Arrays, JsonObject
from layersearch.spaces.kan.images.classification import ClassificationEvaluator
from layersearch.spaces.kan.images.genome import ImageGenome, from_json
from layersearch.spaces.kan.images.published import known
from layersearch.spaces.kan.images.settings import ImageKANSettings
from layersearch.spaces.tasks.images.classifier import TrainResult
from layersearch.spaces.tasks.images.models import ImageClassifier

__all__ = ["ImageKANEvaluator"]

_REFERENCES = ("kan-conv", "kat-vit")


class ImageKANEvaluator(ClassificationEvaluator[ImageGenome]):
    """The evaluator of the kan space on images: see ``ClassificationEvaluator``."""

    space = "kan"

    def __init__(self, settings: ImageKANSettings, data: Arrays, device: str) -> None:
        super().__init__(settings, data, device)
        self.settings = settings

    def parsed(self, genome: JsonObject) -> ImageGenome:
        return from_json(genome)

    def timed(self) -> tuple[ImageGenome, ...]:
        """A published design of each kind."""
        settings = self.settings
        return tuple(known(name, settings.reference_conv, settings.reference_vit) for name in _REFERENCES)

    def trained(self, genome: ImageGenome, *, seed: int, **how: Any) -> tuple[ImageClassifier, TrainResult]:
        model = self.kan(genome, seed)
        return model, self.task.train(model, seed=seed, **how)

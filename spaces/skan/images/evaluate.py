"""Runs the stages of the skan funnel on images in a worker: quality, fitness, re-rank, test.

Networks of the kan space, the baselines, are trained by the same task.
"""

from typing import Any

from layersearch.spaces.contracts import Arrays, JsonObject
from layersearch.spaces.kan.images.classification import ClassificationEvaluator
from layersearch.spaces.skan.images.genome import AnyImageGenome, from_json, selects
from layersearch.spaces.skan.images.published import known
from layersearch.spaces.skan.images.settings import ImageSKANSettings
from layersearch.spaces.skan.images.training import train
from layersearch.spaces.skan.selection import selection_of
from layersearch.spaces.tasks.images.classifier import TrainResult
from layersearch.spaces.tasks.images.models import ImageClassifier

__all__ = ["ImageSKANEvaluator"]

_REFERENCE = "sconvkan"


class ImageSKANEvaluator(ClassificationEvaluator[AnyImageGenome]):
    """``ClassificationEvaluator`` of the skan space on images. Costs are those of pruned networks.

    What is measured at a rung says of a candidate what it says of one of functions and tables: see ``SKANEvaluator``.
    """

    space = "skan"
    has_early_costs = False

    def __init__(self, settings: ImageSKANSettings, data: Arrays, device: str) -> None:
        super().__init__(settings, data, device)
        self.settings = settings

    def parsed(self, genome: JsonObject) -> AnyImageGenome:
        return from_json(genome)

    def timed(self) -> tuple[AnyImageGenome, ...]:
        """The timed steps are of the full stage, the slowest one."""
        return (known(_REFERENCE, self.settings.reference_conv),)

    def trained(self, genome: AnyImageGenome, *, seed: int, **how: Any) -> tuple[ImageClassifier, TrainResult]:
        if selects(genome):
            return train(self.task, genome, seed=seed, **how)
        model = self.kan(genome, seed)
        return model, self.task.train(model, seed=seed, **how)

    def selection(self, genome: AnyImageGenome, model: ImageClassifier) -> JsonObject | None:
        """See ``selection_of``; None for a baseline."""
        return selection_of(genome.layer, model) if selects(genome) else None

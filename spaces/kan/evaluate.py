"""Runs the stages of the kan funnel in a worker: quality, fitness, re-rank, test."""

from typing import Any

from layersearch.spaces.contracts import Arrays, JsonObject
from layersearch.spaces.kan.genome import KANGenome, from_json
from layersearch.spaces.kan.network import Network
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.kan.regression import RegressionEvaluator
from layersearch.spaces.kan.settings import KANSettings
from layersearch.spaces.tasks.regression.training import TrainResult

__all__ = ["KANEvaluator"]


class KANEvaluator(RegressionEvaluator[KANGenome]):
    """The evaluator of the kan space: see ``RegressionEvaluator``."""

    space = "kan"

    def __init__(self, settings: KANSettings, data: Arrays, device: str) -> None:
        super().__init__(settings.funnel, settings.task, settings.cuts, data, device)
        self.settings = settings

    def parsed(self, genome: JsonObject) -> KANGenome:
        return from_json(genome)

    def timed(self) -> tuple[KANGenome, ...]:
        """The first published design."""
        return (next(iter(PUBLISHED.values())).with_widths(self.settings.network.reference),)

    def trained(self, genome: KANGenome, *, seed: int, **how: Any) -> tuple[Network, TrainResult]:
        network = self.kan(genome, seed)
        return network, self.task.train(network, seed=seed, **how)

    def hidden(self, genome: KANGenome) -> tuple[int, ...]:
        return genome.hidden

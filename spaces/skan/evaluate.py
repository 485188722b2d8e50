"""Runs the stages of the skan funnel in a worker: quality, fitness, re-rank, test.

A stage trains through whatever full, selective and pruning steps lie before its goal; what was selected goes into the
outcome. Networks of the kan space, the baselines, are trained by the same task.
"""

from typing import Any

from layersearch.spaces.contracts import Arrays, JsonObject
from layersearch.spaces.kan.network import Network
from layersearch.spaces.kan.regression import RegressionEvaluator
from layersearch.spaces.skan.genome import Genome, SKANGenome, from_json
from layersearch.spaces.skan.published import PUBLISHED
from layersearch.spaces.skan.selection import selection_of
from layersearch.spaces.skan.settings import SKANSettings
from layersearch.spaces.skan.training import train
from layersearch.spaces.tasks.regression.training import TrainResult

__all__ = ["SKANEvaluator"]


class SKANEvaluator(RegressionEvaluator[Genome]):
    """The evaluator of the skan space: see ``RegressionEvaluator``. Costs are those of pruned networks.

    At a rung a network is in the stage that its genome has it in at that step. Before its pruning the error is that of
    all bases of the pool together, weighed by the gates as they are: it says how well this pool, these widths and gates
    learn, and nothing of what the pruning will lose. A candidate that was pruned already is compared with it all the
    same. Costs are not measured there: what is pruned later has still to shrink.
    """

    space = "skan"
    has_early_costs = False

    def __init__(self, settings: SKANSettings, data: Arrays, device: str) -> None:
        super().__init__(settings.funnel, settings.task, settings.cuts, data, device)
        self.settings = settings

    def parsed(self, genome: JsonObject) -> Genome:
        return from_json(genome)

    def timed(self) -> tuple[Genome, ...]:
        """The first design by name; the timed steps are of its full stage."""
        return (next(iter(PUBLISHED.values())).with_widths(self.settings.network.reference),)

    def trained(self, genome: Genome, *, seed: int, **how: Any) -> tuple[Network, TrainResult]:
        if isinstance(genome, SKANGenome):
            return train(self.task, genome, seed=seed, **how)
        network = self.kan(genome, seed)
        return network, self.task.train(network, seed=seed, **how)

    def hidden(self, genome: Genome) -> tuple[int, ...]:
        return genome.hidden

    def selection(self, genome: Genome, network: Network) -> JsonObject | None:
        """See ``selection_of``; None for a baseline."""
        return selection_of(genome, network) if isinstance(genome, SKANGenome) else None

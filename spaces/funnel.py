"""The funnel of spaces that train whole networks: quality, fitness, re-rank, test; and the re-rank done once more."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from layersearch.errors import RunError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Evaluator, Job, JsonObject, Outcome, Outline, Stage, Trial
from layersearch.spaces.fidelity import UNCUT, Cut

__all__ = ["Maker", "NetworkSpace", "again", "rerank_seed"]

G = TypeVar("G")

_FIRST = "rerank:0"


class Maker(Protocol[G]):
    """Makes genomes within the limits of a run."""

    def holds(self, genome: G) -> bool: ...

    def sample(self, rng: random.Random) -> G: ...

    def mutate(self, genome: G, rng: random.Random) -> G: ...

    def suggest(self, trial: Trial) -> G: ...

    def parameters(self, genome: G) -> Mapping[str, int | float | str | bool] | None: ...


class NetworkSpace(ABC, Generic[G]):
    """What is the same in spaces whose genomes a generator makes, and whose candidates are trained as a whole.

    Each stage of the search goes on with the training that quality, or an earlier rung, began; the test is of the
    networks that the re-rank trained.

    Args:
        generator: of the genomes.
        rerank_seeds: trainings when the best candidates and the baselines are ranked again.
        cuts: of the training of the search.
    """

    def __init__(self, generator: Maker[G], rerank_seeds: int, cuts: Sequence[Cut] = UNCUT) -> None:
        self.generator = generator
        before = (None, *(cut.stage for cut in cuts))
        self.stages = tuple(
            Stage(cut.stage, cut.name, resumed, cut.rung, cut.steps) for cut, resumed in zip(cuts, before, strict=False)
        )
        self.rerank_stages = tuple(Stage(f"rerank:{k}", "rerank") for k in range(rerank_seeds))
        self.test_stages = tuple(Stage(f"test:{k}", "test", resumes=f"rerank:{k}") for k in range(rerank_seeds))

    def sample(self, rng: random.Random) -> G:
        return self.generator.sample(rng)

    def mutate(self, genome: G, rng: random.Random) -> G:
        return self.generator.mutate(genome, rng)

    def suggest(self, trial: Trial) -> G:
        return self.generator.suggest(trial)

    def parameters(self, genome: G) -> Mapping[str, int | float | str | bool] | None:
        return self.generator.parameters(genome)

    @abstractmethod
    def outline(self, genome: G) -> Outline: ...

    def possible(self, found: Mapping[str, G]) -> dict[str, G]:
        """Those that pass the outline."""
        return {name: genome for name, genome in found.items() if self.outline(genome).reason is None}

    def sampled(self, found: Mapping[str, G]) -> dict[str, G]:
        """Those that pass the outline and are within the limits of the run."""
        return {name: genome for name, genome in self.possible(found).items() if self.generator.holds(genome)}


def rerank_seed(run_seed: int) -> int:
    """Of the first training of the re-rank."""
    return Seeds(run_seed).derive("rerank", _FIRST)


def again(evaluator: Evaluator, genome: JsonObject, run_seed: int) -> tuple[Outcome, bytes]:
    """The first training of the re-rank, repeated: its outcome and checkpoint. Raises: RunError if it has none."""
    outcome = evaluator.run(Job(candidate=0, stage=_FIRST, genome=genome, seed=rerank_seed(run_seed)))
    if outcome.checkpoint is None:
        raise RunError(f"the network must be trained to have weights, and could not be ({outcome.reason})")
    return outcome, outcome.checkpoint

"""The funnel of spaces that train whole networks: quality, fitness, re-rank, test; and the re-rank done once more."""

from layersearch.errors import RunError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Evaluator, Job, JsonObject, Outcome, Stage

__all__ = ["SEARCH_STAGES", "again", "rerank_seed", "rerank_stages", "test_stages"]

SEARCH_STAGES = (Stage("quality", "quality"), Stage("fitness", "fitness", resumes="quality"))
"""Fitness goes on with the training that quality began."""

_FIRST = "rerank:0"


def rerank_stages(seeds: int) -> tuple[Stage, ...]:
    """One per training."""
    return tuple(Stage(f"rerank:{k}", "rerank") for k in range(seeds))


def test_stages(seeds: int) -> tuple[Stage, ...]:
    """Of the networks that the re-rank trained."""
    return tuple(Stage(f"test:{k}", "test", resumes=f"rerank:{k}") for k in range(seeds))


def rerank_seed(run_seed: int) -> int:
    """Of the first training of the re-rank."""
    return Seeds(run_seed).derive("rerank", _FIRST)


def again(evaluator: Evaluator, genome: JsonObject, run_seed: int) -> tuple[Outcome, bytes]:
    """The first training of the re-rank, repeated: its outcome and checkpoint. Raises: RunError if it has none."""
    outcome = evaluator.run(Job(candidate=0, stage=_FIRST, genome=genome, seed=rerank_seed(run_seed)))
    if outcome.checkpoint is None:
        raise RunError(f"the network must be trained to have weights, and could not be ({outcome.reason})")
    return outcome, outcome.checkpoint

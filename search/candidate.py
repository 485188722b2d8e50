"""What the store keeps of a candidate and of each stage it went through: plain rows, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from layersearch.spaces.contracts import JsonObject, Outcome

__all__ = ["REMOVED", "Candidate", "Finish", "Origin", "StageResult", "State"]

State: TypeAlias = Literal[
    "screened_out", "duplicate", "in_flight", "paused", "evaluated", "rejected", "failed", "stopped"
]
"""``in_flight``: passed screen and dedup, its stages are not all run. ``paused``: waits at a rung for its promotion.
``stopped``: was in flight or paused when the run ended (``told`` is ``None``), or was stopped by the scheduler."""
Origin: TypeAlias = Literal["seed", "random", "evolved", "suggested", "baseline"]

REMOVED = ""
"""Stands for the hash of a checkpoint that was there and is no longer needed."""


@dataclass(frozen=True)
class Candidate:
    """One proposed genome.

    Args:
        number: 0, 1, 2, … in order of proposal; baselines are -1, -2, ….
        slot: for which slot it was proposed. The last candidate of a slot is the one that went to the workers.
        genome: plain data, ``space.to_json``.
        key, function_key, novelty: of ``Outline`` and ``Probe``; ``None`` where it did not get that far.
        parents: numbers of the candidates it was made from.
        stage: name of the stage that rejected it or in which it failed.
        duplicate_of: number of the earlier candidate that is the same function.
        name: of a baseline or seed layer.
        fitness: of an evaluated candidate, by objective, in natural sign.
        seen: how many tells the driver had heard when it proposed this.
        told: order in which its last result came in, among all finished candidates.
    """

    number: int
    slot: int | None
    origin: Origin
    genome: JsonObject
    key: str | None = None
    function_key: str | None = None
    novelty: str | None = None
    parents: tuple[int, ...] = ()
    state: State = "in_flight"
    stage: str | None = None
    reason: str = ""
    duplicate_of: int | None = None
    known_as: str | None = None
    name: str | None = None
    fitness: Mapping[str, float] = field(default_factory=dict)
    seen: int = 0
    told: int | None = None


@dataclass(frozen=True)
class StageResult:
    """Outcome of one stage of one candidate. ``checkpoint`` names a file by its SHA-256 (or is ``REMOVED``)."""

    candidate: int
    stage: str
    outcome: Outcome
    checkpoint: str | None = None
    attempts: int = 1
    seq: int = 0


@dataclass(frozen=True)
class Finish:
    """What becomes of a candidate with its last result, or (``paused``) with that which brings it to a rung."""

    state: State
    stage: str | None = None
    reason: str = ""
    fitness: Mapping[str, float] = field(default_factory=dict)
    told: int | None = None

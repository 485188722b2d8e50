"""What ``search show`` and the report say of a run, as one plain object read from its store."""

import math
from dataclasses import asdict

from layersearch.search.candidate import Candidate
from layersearch.search.lock import run_state
from layersearch.search.rerank import spread
from layersearch.search.savings import saved
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject, SelectingSpace, Space

__all__ = ["show"]


def show(reader: StoreReader, space: Space, k: int = 10) -> JsonObject:
    """The object of ``search show --json``: counts, the ``k`` best candidates and the baselines.

    ``selection`` of an entry is that of the first training of the re-rank, else of the search, or null; ``selected`` is
    it in one line. ``rerank`` and ``test`` are ``{objective: {mean, std, n}}`` over repeated trainings, if any.

    Args:
        space: the run's, for formulas.
    """
    with reader.snapshot():
        settings = reader.meta("run", {})
        return {
            "run": reader.run_dir.name,
            "space": reader.meta("space", {}).get("name"),
            "state": run_state(reader),
            "phase": reader.meta("phase", "search"),
            "seed": settings.get("seed"),
            "driver": settings.get("driver"),
            "sampler": settings.get("driver_settings", {}).get("sampler"),
            "scheduler": settings.get("scheduler", "straight"),
            "replay": reader.meta("replay"),
            "elapsed_s": reader.meta("elapsed_s", 0.0),
            "objectives": [asdict(o) for o in reader.objectives()],
            "counts": reader.counts().to_json(),
            "saved": saved(reader),
            "front": reader.front(),
            "winner": reader.meta("winner"),
            "best": [_entry(reader, space, candidate) for candidate in reader.best(k)],
            "baselines": [_entry(reader, space, candidate) for candidate in reader.baselines()],
        }


def _entry(reader: StoreReader, space: Space, candidate: Candidate) -> JsonObject:
    results = reader.results(candidate.number)
    kinds = {kind: [s.id for s in reader.stages(f"{kind}_stages")] for kind in ("rerank", "test")}
    entry: JsonObject = {
        "candidate": candidate.number,
        "name": candidate.name,
        "state": candidate.state,
        "formula": space.formula(space.from_json(candidate.genome)),
        "genome": candidate.genome,
        "fitness": dict(candidate.fitness),
        "metrics": reader.metrics(candidate.number),
        "parents": list(candidate.parents),
        "origin": candidate.origin,
        "known_as": candidate.known_as,
        "selection": reader.selection(candidate.number),
        "rerank": spread(results, kinds["rerank"]),
        "test": spread(results, kinds["test"]),
        "cpu_s": math.fsum(result.outcome.cpu_s for result in results),
    }
    if entry["selection"] is not None and isinstance(space, SelectingSpace):
        entry["selected"] = space.selected(entry["selection"])
    if candidate.reason:
        entry["reason"] = f"{candidate.stage}: {candidate.reason}" if candidate.stage else candidate.reason
    return entry

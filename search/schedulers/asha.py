"""Asynchronous successive halving: all candidates are trained a little, and only the best of a rung are trained on."""

import math
from collections.abc import Mapping, Sequence

from layersearch.errors import RecipeError
from layersearch.search.candidate import State
from layersearch.search.rerank import mean_value
from layersearch.search.schedulers._fronts import Fronts
from layersearch.search.schedulers.base import (
    SCHEDULERS,
    Decision,
    Promotion,
    Scheduler,
    SchedulerEntry,
    Standing,
    knobs,
    rung_ends,
    whole,
)
from layersearch.spaces.contracts import Objective, Stage

__all__ = ["Asha"]

DEFAULTS = {"eta": 3}
_NEXT, _PAUSE = Decision("next"), Decision("pause")


class Asha:
    """ASHA (Li et al. 2020, arXiv:1810.05934, algorithm 2), which pauses and promotes instead of stopping.

    A candidate that reaches a rung waits there. It goes on once it is among the best ``⌊n / eta⌋`` of the ``n`` that
    have reached this rung; the highest rung is looked at first, and only if nobody can go on a new candidate begins.
    With several objectives the best are those of the lowest non-dominated rank, within a rank those of the larger mean,
    then the older ones (unlike Schmucker et al. 2021, arXiv:2106.12639, who take an ε-net). What has no weight, such as
    the cost of a layer, counts in the rank from the first rung at which it is known.

    Args:
        eta: one of this many goes on from a rung.
    """

    watches = True

    def __init__(self, stages: Sequence[Stage], objectives: tuple[Objective, ...], eta: int) -> None:
        self._eta = eta
        self._objectives = objectives
        self._stages = {
            rung: [stage.id for stage in stages if stage.rung == rung] for rung in sorted(rung_ends(stages).values())
        }
        self._final = [stage.id for stage in stages if stage.rung is None]
        self._rungs = {rung: Fronts() for rung in self._stages}
        self._promoted: set[Promotion] = set()

    def decide(self, standing: Standing) -> Decision:
        if standing.rung is None or Promotion(standing.candidate, standing.rung) in self._promoted:
            return _NEXT
        return _PAUSE

    def promote(self) -> Promotion | None:
        for rung in reversed(self._rungs):
            fronts = self._rungs[rung]
            number = fronts.first_left(len(fronts) // self._eta)
            if number is not None:
                return Promotion(number, rung)
        return None

    def promoted(self, promotion: Promotion) -> None:
        self._promoted.add(promotion)
        self._rungs[promotion.rung].take(promotion.candidate)

    def heard(self, standing: Standing, state: State) -> None:
        if state == "paused":
            assert standing.rung is not None, "candidates wait at rungs"
            found: dict[str, float] = {}
            for stage in (*self._final, *self._stages[standing.rung]):
                found.update(standing.measured.get(stage, {}))
            values = tuple(o.sign * found[o.name] if o.name in found else -math.inf for o in self._objectives)
            self._rungs[standing.rung].add(standing.candidate, values, mean_value(found, self._objectives))


def _eta(given: Mapping[str, float]) -> int:
    return whole("eta", knobs("asha", given, DEFAULTS)["eta"], least=2)


def _make(stages: Sequence[Stage], objectives: tuple[Objective, ...], given: Mapping[str, float]) -> Scheduler:
    eta = _eta(given)
    if not rung_ends(stages):
        raise RecipeError(
            "scheduler asha must have rungs, but the space measures its candidates only at the end of their training; "
            "use --scheduler straight"
        )
    return Asha(stages, objectives, eta)


SCHEDULERS.add("asha", SchedulerEntry(_make, _eta))

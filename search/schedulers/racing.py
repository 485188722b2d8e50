"""Racing over networks: a candidate that falls behind the best on every network so far is trained on no other."""

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import itemgetter

from layersearch.errors import RecipeError
from layersearch.search.candidate import State
from layersearch.search.rerank import mean_value
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

__all__ = ["Racing"]

DEFAULTS = {"margin": 2.0, "best": 5, "eta": 3}
_NEXT = Decision("next")

_Block = tuple[str, str]
"""A stage and an objective: where candidates can be compared like with like."""


class Racing:
    """A race (Maron and Moore 1994, "Hoeffding races"; Birattari et al. 2002, "F-race") against the best so far.

    Each measurement - a network, at a rung or at the end of its training, with the seed of the slot - is a block in
    which candidates are compared. A candidate is stopped as soon as, in every block so far, it is worse than the worst
    of the ``best`` evaluated candidates by more than ``margin`` standard deviations of theirs. These are about equally
    good, so their spread in a block is mostly its noise: seeds, images, and what one network likes and another does
    not. Unlike the sources there is no test of significance: with a handful of blocks it could never reject.

    What has no weight, such as the cost of a layer, is no block: by it alone, nobody falls behind or keeps up.

    Nobody is stopped before twice ``best`` candidates were evaluated; a candidate is held against those that the
    driver had heard of when it proposed it.
    """

    watches = True

    def __init__(self, stages: Sequence[Stage], objectives: tuple[Objective, ...], margin: float, best: int) -> None:
        self._objectives = objectives
        self._signs = {o.name: o.sign for o in objectives if o.weight}
        self._final = [stage.id for stage in stages if stage.rung is None]
        self._margin = margin
        self._best = best
        self._leaders: list[tuple[float, int, Mapping[_Block, float]]] = []  # best first: minus mean, number, values
        self._n_evaluated = 0
        self._n_heard = 0
        self._bars: list[tuple[int, Mapping[_Block, float]]] = []  # from which number heard on, and the bar by block

    def decide(self, standing: Standing) -> Decision:
        i = bisect_right(self._bars, standing.seen, key=itemgetter(0))
        if i == 0 or standing.stage not in standing.measured:
            return _NEXT
        bar = self._bars[i - 1][1]
        blocks = {block: value for block, value in self._blocks(standing.measured).items() if block in bar}
        if not blocks or not all(value < bar[block] for block, value in blocks.items()):
            return _NEXT
        return Decision("stop", f"behind the best {self._best} in all of {len(blocks)} measurements")

    def promote(self) -> Promotion | None:
        return None

    def promoted(self, promotion: Promotion) -> None:
        """Nobody ever is."""

    def heard(self, standing: Standing, state: State) -> None:
        self._n_heard += 1
        if state != "evaluated":
            return
        self._n_evaluated += 1
        fitness: dict[str, float] = {}
        for stage in self._final:
            fitness.update(standing.measured.get(stage, {}))
        leader = (-mean_value(fitness, self._objectives), standing.candidate, self._blocks(standing.measured))
        leaders = sorted([*self._leaders, leader], key=itemgetter(0, 1))[: self._best]
        if self._n_evaluated >= 2 * self._best and (leaders != self._leaders or not self._bars):
            self._bars.append((self._n_heard, self._bar([values for *_, values in leaders])))
        self._leaders = leaders

    def _blocks(self, measured: Mapping[str, Mapping[str, float]]) -> dict[_Block, float]:
        return {
            (stage, name): self._signs[name] * value
            for stage, fitness in measured.items()
            for name, value in fitness.items()
            if name in self._signs
        }

    def _bar(self, leaders: Sequence[Mapping[_Block, float]]) -> dict[_Block, float]:
        bar = {}
        for block in leaders[0]:
            values = [leader[block] for leader in leaders if block in leader]
            bar[block] = min(values) - self._margin * (statistics.stdev(values) if len(values) > 1 else 0.0)
        return bar


def _ratio(given: Mapping[str, float]) -> int:
    return whole("eta", knobs("racing", given, DEFAULTS)["eta"], least=2)


def _make(stages: Sequence[Stage], objectives: tuple[Objective, ...], given: Mapping[str, float]) -> Scheduler:
    values = knobs("racing", given, DEFAULTS)
    margin = values["margin"]
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not (math.isfinite(margin) and margin >= 0):
        raise RecipeError(f"scheduler.margin must be finite and ≥ 0, got {margin!r}; change it")
    _ratio(given)
    if not rung_ends(stages):
        raise RecipeError(
            "scheduler racing must have something to compare before the end of a training, but the space measures its "
            "candidates there only; use --scheduler straight"
        )
    return Racing(stages, objectives, float(margin), whole("best", values["best"], least=1))


SCHEDULERS.add("racing", SchedulerEntry(_make, _ratio))

"""Core-seconds of the whole funnel, fitness included, for the same random candidates by two lowerings.

Each candidate goes through the stages of a run, by ``torch`` and by the other lowering in turn, until it is rejected or
evaluated; compilers count. The other lowering takes over at the step that ``--lowering auto`` would choose here, or at
a given one.
"""

import os
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass

from common import show, table

from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import LOWERINGS
from layersearch.primitives.seeds import Seeds
from layersearch.search.executors.base import run_timed
from layersearch.search.scheduling import training_of
from layersearch.search.screening import Screener
from layersearch.spaces.contracts import Arrays, Job, Outcome
from layersearch.spaces.evonorm.evaluate import EvonormEvaluator
from layersearch.spaces.evonorm.plan import planned
from layersearch.spaces.evonorm.settings import AUTO, effective, parse
from layersearch.spaces.evonorm.space import from_settings

__all__ = ["compare"]

RESAMPLES = 2000


@dataclass(frozen=True)
class Arm:
    """The funnel by one lowering, and the outcomes of every candidate by stage."""

    evaluator: EvonormEvaluator
    outcomes: list[dict[str, Outcome]]

    def run(self, genome: Graph) -> None:
        space = from_settings(self.evaluator.settings.model_dump(mode="json"))
        number, found = len(self.outcomes), dict[str, Outcome]()
        for stage in space.stages:
            before = None if stage.resumes is None else found[stage.resumes].checkpoint
            seed = Seeds(0).derive("stage", number, training_of(stage.id, space.stages))
            job = Job(number, stage.id, space.to_json(genome), seed, checkpoint=before)
            found[stage.id], _ = run_timed(self.evaluator, job, None)
            if found[stage.id].state != "passed":
                break
        self.outcomes.append(found)

    def costs(self) -> list[float]:
        return [sum(outcome.cpu_s for outcome in found.values()) for found in self.outcomes]


def _arm(lowering: str, swap_step: int, data: Arrays) -> Arm:
    changed = {"lowering.swap_step": swap_step} if swap_step else {}
    settings = parse(effective("b", "digits", None, "smoke", changed, lowering=lowering))
    return Arm(EvonormEvaluator(settings, data, "cpu"), [])


def compare(lowering: str, n: int, swap_step: int | None) -> None:
    """Prints what ``n`` random candidates cost by ``torch`` and by ``lowering``; of those so far after Ctrl-C."""
    why = LOWERINGS[lowering].why_unavailable()
    if why is not None:
        sys.exit(f"the lowering must be one that works here, got '{lowering}' ({why})")
    with tempfile.TemporaryDirectory(prefix="layersearch-bench-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # every kernel is built, as in a first run
        _compare(lowering, n, swap_step)


def _compare(lowering: str, n: int, swap_step: int | None) -> None:
    space = from_settings(effective("b", "digits", None, "smoke"))
    data = space.load_data()
    if swap_step is None:
        chosen = parse(planned(effective("b", "digits", None, "smoke", lowering=AUTO), data, "cpu")).lowering
        swap_step = chosen.swap_step if chosen.name == lowering else 0
    arms = {"torch": _arm("torch", 0, data), lowering: _arm(lowering, swap_step, data)}
    rng = random.Random(0)
    proposed: list[Graph] = []
    screener = Screener(space, proposed.__getitem__)
    for arm in arms.values():
        arm.run(space.baselines()["bn-relu"])  # torch sets itself up
        arm.outcomes.clear()
    try:
        while len(arms["torch"].outcomes) < n:
            proposed.append(space.sample(rng))
            if screener.check(proposed[-1], len(proposed) - 1).state == "in_flight":
                for arm in list(arms.values())[:: 1 if len(proposed) % 2 else -1]:
                    arm.run(proposed[-1])
                print(f"\r  {len(arms['torch'].outcomes)} of {n}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        done = min(len(arm.outcomes) for arm in arms.values())
        if not done:
            raise
        for arm in arms.values():
            del arm.outcomes[done:]
    print(file=sys.stderr)
    _report(arms, lowering, swap_step, len(proposed))


def _report(arms: dict[str, Arm], lowering: str, swap_step: int, n_proposed: int) -> None:
    rows: dict[str, dict[str, object]] = {}
    for stage in from_settings(arms["torch"].evaluator.settings.model_dump(mode="json")).stages:
        rows[stage.id] = {}
        for name, arm in arms.items():
            outcomes = [found[stage.id] for found in arm.outcomes if stage.id in found]
            passed = sum(outcome.state == "passed" for outcome in outcomes)
            each = f"{statistics.mean(outcome.cpu_s for outcome in outcomes):.3f}" if outcomes else "-"
            rows[stage.id][name] = f"{passed}/{len(outcomes)}, {each} s"
    table("passed / run, core-seconds each", rows)
    costs = {name: arm.costs() for name, arm in arms.items()}
    n = len(costs["torch"])
    pairs = list(zip(costs["torch"], costs[lowering], strict=True))
    rng = random.Random(0)
    drawn = (rng.choices(pairs, k=n) for _ in range(RESAMPLES))
    ratios = sorted(sum(a for a, _ in pairs) / sum(b for _, b in pairs) for pairs in drawn)
    ratio = sum(costs["torch"]) / sum(costs[lowering])
    low, high = ratios[RESAMPLES // 40], ratios[-1 - RESAMPLES // 40]
    ends = [[next(reversed(found)) for found in arm.outcomes] for arm in arms.values()]
    show(
        f"{n} random candidates of {n_proposed} samples, {lowering} from step {swap_step} of the first network",
        {
            **{f"core-seconds of the whole funnel, {name}": sum(values) for name, values in costs.items()},
            f"torch / {lowering} (95 % when candidates are drawn again)": f"{ratio:.3g} ({low:.3g} to {high:.3g})",
            "candidates that end at another stage": sum(a != b for a, b in zip(*ends, strict=True)),
        },
    )

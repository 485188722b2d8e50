"""Core-seconds of the funnel against 100 training steps on every anchor network for everyone.

Two streams of new genomes (past screen and dedup): random ones, and one-step mutants of the known layers and of the
survivors among them (drift). Preset smoke on the bundled digits. The core-seconds of each stage are added up in both
orders: stability after and before quality on the first network. "Everyone" runs the quality stage on each network
without the rule at step 60: with an exit at the first loss that is not finite, and without one. Trainings that such an
exit ends are not run on without it: a few of their steps are timed and multiplied.

python tests/bench/bench_funnel.py [N]                 N genomes of drift, 2 N random ones: they are cheaper
python tests/bench/bench_funnel.py [N] --lowering c    N random ones by the torch lowering and by another
"""

import argparse
import functools
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from common import core_seconds, environment, show, table
from funnel_lowerings import compare
from torch.nn import functional as F

from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.seeds import Seeds
from layersearch.search.executors.base import run_timed
from layersearch.search.screening import Screener
from layersearch.spaces.contracts import Job, Outcome
from layersearch.spaces.evonorm.evaluate import EvonormEvaluator
from layersearch.spaces.evonorm.settings import effective
from layersearch.spaces.evonorm.space import EvonormSpace, from_settings

__all__: list[str] = []

TIMED_STEPS = 5
RESAMPLES = 2000
EXITS = ("with NaN exit", "without NaN exit")
Propose = Callable[[Sequence[Graph], random.Random], Graph]
"""A genome from the survivors so far."""


@dataclass(eq=False)
class Trial:
    """What one genome did.

    Args:
        funnel: outcome by stage id; quality on the first network and stability whatever the other says.
        everyone: outcome of quality without the early rule, by network.
        without_exit: core-seconds of the same without an exit at NaN, by network.
    """

    funnel: dict[str, Outcome] = field(default_factory=dict)
    everyone: dict[str, Outcome] = field(default_factory=dict)
    without_exit: dict[str, float] = field(default_factory=dict)

    def cost(self, order: Sequence[str]) -> float:
        """Core-seconds of the funnel in this order of its stages."""
        total = 0.0
        for stage in order:
            total += self.funnel[stage].cpu_s
            if self.funnel[stage].state != "passed":
                break
        return total

    def everyone_cost(self, exits: str) -> float:
        """Core-seconds of the quality stage on every network without the early rule."""
        return sum(self.without_exit.values()) if exits == EXITS[1] else sum(o.cpu_s for o in self.everyone.values())

    def passes(self, stages: Sequence[str]) -> bool:
        return all(stage in self.funnel and self.funnel[stage].state == "passed" for stage in stages)


class Bench:
    """The funnel of a space, and the same without the rule at step 60."""

    def __init__(self) -> None:
        settings = effective("b", "digits", None, "smoke")
        self.space: EvonormSpace = from_settings(settings)
        data = self.space.load_data()
        patient = from_settings(effective("b", "digits", None, "smoke", {"funnel.early_step": 0}))
        self.early = EvonormEvaluator(self.space.settings, data, "cpu")
        self.patient = EvonormEvaluator(patient.settings, data, "cpu")
        self.networks = self.space.settings.task.networks
        self.early_limit = self.space.settings.funnel.early_chance * self.early.chance
        stages = [stage.id for stage in self.space.stages if stage.name != "fitness"]
        stability = [stage for stage in stages if stage.startswith("stability")]
        self.probe, self.first = f"probe:{self.networks[0]}", f"quality:{self.networks[0]}"
        self.others = [f"quality:{network}" for network in self.networks[1:]]
        self.orders = {
            "stability after": [self.probe, self.first, *stability, *self.others],
            "stability before": [self.probe, *stability, self.first, *self.others],
        }
        self.either = [self.first, *stability]

    def run(self, evaluator: EvonormEvaluator, stage: str, genome: Graph, number: int) -> Outcome:
        seed = Seeds(0).derive("stage", number, stage)
        outcome, _ = run_timed(evaluator, Job(number, stage, self.space.to_json(genome), seed), None)
        return outcome

    def trial(self, genome: Graph, number: int) -> Trial:
        trial = Trial()
        trial.funnel[self.probe] = self.run(self.early, self.probe, genome, number)
        if trial.passes([self.probe]):
            for stage in self.either:
                trial.funnel[stage] = self.run(self.early, stage, genome, number)
        for stage in self.others if trial.passes([self.probe, *self.either]) else ():
            trial.funnel[stage] = self.run(self.early, stage, genome, number)
            if not trial.passes([stage]):
                break
        for network in self.networks:
            outcome = trial.funnel.get(f"quality:{network}")
            if outcome is None or self.stopped_early(outcome):
                outcome = self.run(self.patient, f"quality:{network}", genome, number)
            trial.everyone[network] = outcome
            to_the_end = outcome.state != "failed" and outcome.reason != "loss is not finite"
            trial.without_exit[network] = outcome.cpu_s if to_the_end else self.blind_seconds(genome, network)
        return trial

    def stopped_early(self, outcome: Outcome) -> bool:
        return outcome.state == "rejected" and outcome.limit == self.early_limit

    def stopped_by(self, trial: Trial) -> str:
        return next(stage for stage in self.orders["stability after"] if not trial.passes([stage]))

    def blind_seconds(self, genome: Graph, network: str) -> float:
        """Core-seconds of all quality steps and the evaluation, whatever the loss: a few steps timed, multiplied."""
        task, settings = self.early.task, self.space.settings.task
        model = task.build(network, lambda channels: build_layer(genome, channels, groups=settings.groups), seed=0)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

        def step(number: int) -> None:
            x, y = task.batch(0, number)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        step(0)
        per_step = statistics.median(core_seconds(functools.partial(step, n)) for n in range(1, 1 + TIMED_STEPS))
        evaluation = core_seconds(lambda: task.evaluate(model, "validation", settings.validation_cap))
        return settings.quality_steps * per_step + evaluation


def measure(bench: Bench, title: str, n: int, propose: Propose) -> None:
    rng = random.Random(0)
    known = list({**bench.space.seeds(), **bench.space.baselines()}.values())
    proposed: list[Graph] = []
    screener = Screener(bench.space, proposed.__getitem__)
    survivors: list[Graph] = []
    trials: list[Trial] = []

    def is_new(genome: Graph) -> bool:
        proposed.append(genome)
        return screener.check(genome, len(proposed) - 1).state == "in_flight"

    for genome in known:
        is_new(genome)
    while len(trials) < n:
        genome = propose([*known, *survivors], rng)
        if is_new(genome):
            trials.append(bench.trial(genome, len(trials)))
            if trials[-1].passes(bench.orders["stability after"]):
                survivors.append(genome)
            print(f"\r  {title}: {len(trials)} of {n}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    report(bench, title, trials, len(proposed) - len(known))


def report(bench: Bench, title: str, trials: list[Trial], n_proposed: int) -> None:
    n = len(trials)
    rows: dict[str, dict[str, object]] = {}
    for stage in bench.orders["stability after"]:
        outcomes = [trial.funnel[stage] for trial in trials if stage in trial.funnel]
        rows[stage] = {
            "run": len(outcomes),
            "passed": sum(o.state == "passed" for o in outcomes),
            "failed": sum(o.state == "failed" for o in outcomes),
            "core-s each": statistics.mean(o.cpu_s for o in outcomes) if outcomes else float("nan"),
        }
    table(
        f"{title}: {n} new genomes of {n_proposed}; quality on the first network and stability, each after probe", rows
    )
    everyone = {name: sum(trial.everyone_cost(name) for trial in trials) for name in EXITS}
    costs = {name: sum(trial.cost(order) for trial in trials) for name, order in bench.orders.items()}
    quality = [trial for trial in trials if all(o.state == "passed" for o in trial.everyone.values())]
    passed = [trial for trial in trials if trial.passes(bench.orders["stability after"])]
    lost = [trial for trial in quality if trial not in passed]
    late = [
        (trial.funnel[f"quality:{network}"], trial.everyone[network])
        for trial in trials
        for network in bench.networks
        if f"quality:{network}" in trial.funnel and bench.stopped_early(trial.funnel[f"quality:{network}"])
    ]
    probed_out = [trial for trial in trials if not trial.passes([bench.probe])]
    figures: dict[str, object] = {
        **{f"core-seconds per genome, everyone {name}": value / n for name, value in everyone.items()},
        **{f"core-seconds per genome, funnel, {name}": value / n for name, value in costs.items()},
    }
    for order, cost in costs.items():
        for name, value in everyone.items():
            figures[f"everyone {name} / funnel, {order}"] = (
                f"{value / cost:.3g} ({interval(trials, name, bench.orders[order])})"
            )
    figures |= {
        "funnel, stability after / before": costs["stability after"] / costs["stability before"],
        "pass rate of the funnel": len(passed) / n,
        "pass rate of 100 steps on every network": len(quality) / n,
        "of these, not passed by the funnel": len(lost),
        **{f"  stopped by {stage}": k for stage, k in Counter(map(bench.stopped_by, lost)).items()},
        "trainings stopped at step 60": len(late),
        "  of these, over the quality limit at step 100 (false)": sum(o.state == "passed" for _, o in late),
        "  core-seconds spared by stopping, of the funnel": sum(o.cpu_s - e.cpu_s for e, o in late)
        / costs["stability after"],
        "genomes stopped by the probe": len(probed_out),
        "  of these, good on some network after 100 steps (false)": sum(
            any(o.state == "passed" for o in trial.everyone.values()) for trial in probed_out
        ),
    }
    show(title, figures)


def interval(trials: list[Trial], exits: str, order: Sequence[str]) -> str:
    """95 % of the ratio everyone / funnel when the genomes are drawn again with replacement."""
    rng = random.Random(0)
    pairs = [(trial.everyone_cost(exits), trial.cost(order)) for trial in trials]
    ratios = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(sum(a for a, _ in drawn) / sum(b for _, b in drawn))
    ratios.sort()
    return f"{ratios[RESAMPLES // 40]:.3g} to {ratios[-1 - RESAMPLES // 40]:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", metavar="N", type=int, nargs="?", help="default 15, and 1000 with --lowering")
    parser.add_argument("--lowering", help="compared with torch by the core-seconds of the whole funnel")
    parser.add_argument("--swap-step", type=int, help="at which that lowering takes over; default: as auto chooses")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    if args.lowering is not None:
        compare(args.lowering, 1000 if args.n is None else args.n, args.swap_step)
        return
    n = 15 if args.n is None else args.n
    bench = Bench()
    bench.trial(bench.space.baselines()["bn-relu"], 0)  # torch sets itself up
    measure(bench, "random", 2 * n, lambda survivors, rng: bench.space.sample(rng))
    measure(bench, "drift", n, lambda survivors, rng: bench.space.mutate(rng.choice(survivors), rng))


if __name__ == "__main__":
    main()

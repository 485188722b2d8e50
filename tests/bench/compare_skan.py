"""S-KAN against each basis of its pool, an MLP of equal size, efficient-kan and pykan; and what its choices are worth.

python tests/bench/compare_skan.py RECORD.jsonl [--functions r1,r2] [--seeds 0,1] [--steps 1000] [--ablation] [--cost]

Every training is a line of RECORD.jsonl; those that are there are not made again, so that a run goes on where it was
stopped. All arms have hidden layers [8, 8], 2,000 points (60 % trained on), Adam at 1e-2 with a cosine over all steps,
as the preset ``smoke``; the error is that on the test part, in deviations of the target. Nothing is chosen by it. All
layers of ours start by ``branch``, as known designs do in a search, or as ``--init`` says. The MLP has as many
parameters as the pruned network of the same seed. pykan is the package (``pip install pykan``), left out where it
cannot be imported: a network of its own with 5 intervals and its own start, trained by the same steps, its grids
following the data every fifth of the first 50 steps, as its own ``fit`` does. ``--ablation`` has variants of S-KAN in
place of the others; ``--cost`` times one forward and backward pass of pruned layers against layers of one basis.
"""

import argparse
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import torch

from layersearch.primitives import KANLinear, MixedKANLinear, SelectiveKANLinear
from layersearch.spaces.kan.network import build
from layersearch.spaces.kan.published import mlp_of
from layersearch.spaces.kan.staged import init_generator
from layersearch.spaces.skan.genome import Genome, SKANGenome
from layersearch.spaces.skan.published import PUBLISHED, single
from layersearch.spaces.skan.selection import chosen_of
from layersearch.spaces.skan.training import train
from layersearch.spaces.tasks.regression import RegressionTask, TrainResult, load_regression, preset, to_arrays

__all__: list[str] = []

HIDDEN = (8, 8)
SKAN = PUBLISHED["skan"].with_widths(HIDDEN)
ABLATION: dict[str, SKANGenome] = {
    "skan": SKAN,
    "pruning gate": replace(SKAN, pruning="gate"),
    "pruning drop": replace(SKAN, pruning="drop"),
    "gumbel": replace(SKAN, gate="gumbel", pruning="gate"),
    "straight": replace(SKAN, gate="straight", pruning="gate"),
    "no full stage": replace(SKAN, shares=(0.0, 0.3, 0.7)),
    "long selection": replace(SKAN, shares=(0.2, 0.4, 0.4)),
    "short selection": replace(SKAN, shares=(0.05, 0.1, 0.85)),
}
PYKAN = "pykan"
PYKAN_GRID, PYKAN_UPDATES = 5, range(0, 50, 5)
HAS_PYKAN = importlib.util.find_spec("kan") is not None
_Row = dict[str, object]


@dataclass(frozen=True)
class Protocol:
    """What all trainings of a table share."""

    steps: int
    init: str

    def started(self, genome: Genome) -> Genome:
        return replace(genome, init=self.init)

    def others(self, skan_parameters: int, inputs: int) -> dict[str, Genome | None]:
        """What S-KAN is compared with; None for pykan, which is no genome."""
        found: dict[str, Genome | None] = {name: single(name, HIDDEN) for name in (*SKAN.bases, "efficient-kan")}
        found = {name: self.started(genome) for name, genome in found.items() if genome is not None}
        return found | {"mlp": mlp_of(skan_parameters, inputs, 1)} | ({PYKAN: None} if HAS_PYKAN else {})

    def measured(self, task: RegressionTask, genome: Genome | None, seed: int) -> _Row:
        """One training and its test error."""
        begin = time.process_time()
        how: dict[str, Any] = {"until_step": self.steps, "total_steps": self.steps, "seed": seed}
        network: torch.nn.Module
        if isinstance(genome, SKANGenome):
            network, result = train(task, genome, **how)
        elif genome is not None:
            network = build(genome, task.in_features, 1, generator=init_generator(seed))
            result = task.train(network, **how)
        else:
            network, result = trained_pykan(task, seed, how)
        seconds = time.process_time() - begin
        error = task.evaluate(network, "test").normalised if result.status == "ok" else None
        size = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return {"rmse": error, "parameters": size, "core_s": seconds, **spaces(network)}


def trained_pykan(task: RegressionTask, seed: int, how: dict[str, Any]) -> tuple[torch.nn.Module, TrainResult]:
    """pykan's own network, without its symbolic half, which is all zeros unless one asks for it."""
    import kan

    widths = [task.in_features, *HIDDEN, 1]
    model = kan.KAN(
        width=widths, grid=PYKAN_GRID, k=3, seed=seed, symbolic_enabled=False, auto_save=False, save_act=False
    )
    model.symbolic_fun.requires_grad_(False)
    points, _ = task.points("train")

    def follow(step: int) -> None:
        if step in PYKAN_UPDATES:
            model.update_grid(points)

    return model, task.train(model, before_step=follow, **how)


def spaces(network: torch.nn.Module) -> _Row:
    """How many nodes have each space of the pool."""
    chosen = chosen_of(network)
    flat = [m for layer in chosen or () for m in layer]
    return {"nodes": {name: flat.count(m) for m, name in enumerate(SKAN.bases)}} if flat else {}


def fill(path: Path, functions: list[str], seeds: list[int], protocol: Protocol, ablation: bool) -> list[_Row]:
    """Makes the trainings that the record has not, and gives all of it."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done: dict[Any, _Row] = {tuple(r[name] for name in ("function", "seed", "steps", "init", "arm")): r for r in rows}

    def once(task: RegressionTask, function: str, seed: int, arm: str, genome: Genome | None) -> _Row:
        place = {"function": function, "seed": seed, "steps": protocol.steps, "init": protocol.init, "arm": arm}
        key = tuple(place.values())
        if key not in done:
            done[key] = row = {**place, **protocol.measured(task, genome, seed)}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
        return done[key]

    for function in functions:
        settings = preset("smoke", f"fn:{function}")
        task = RegressionTask(to_arrays(load_regression(f"fn:{function}", None, settings.sampling)), settings)
        for seed in seeds:
            if ablation:
                for arm, genome in ABLATION.items():
                    once(task, function, seed, arm, protocol.started(genome))
                continue
            first = once(task, function, seed, "skan", protocol.started(SKAN))
            for arm, other in protocol.others(int(str(first["parameters"])), task.in_features).items():
                once(task, function, seed, arm, other)
    return list(done.values())


def tables(rows: list[_Row], functions: list[str], seeds: list[int], protocol: Protocol, ablation: bool) -> None:
    """Mean ± standard deviation over seeds, and whether S-KAN is best or tied."""
    steps, init = protocol.steps, protocol.init
    wanted = [r for r in rows if r["function"] in functions and r["seed"] in seeds]
    own = [r for r in wanted if (r["steps"], r["init"]) == (steps, init)]
    names = list(ABLATION) if ablation else list(dict.fromkeys(str(r["arm"]) for r in own))
    values = {
        (function, arm): [float(str(r["rmse"])) for r in own if r["function"] == function and r["arm"] == arm]
        for function in functions
        for arm in names
    }
    table: dict[str, dict[str, object]] = {}
    for arm in names:
        table[arm] = {function: _spread(values[function, arm]) for function in functions}
        mine = [r for r in own if r["arm"] == arm]
        table[arm] |= {
            "parameters": round(statistics.fmean(int(str(r["parameters"])) for r in mine)),
            "core-s": statistics.fmean(float(str(r["core_s"])) for r in mine),
        }
    common.table(f"test rmse in deviations of the target, {steps} steps, start {init}, seeds {seeds}", table)
    if not ablation:
        for function in functions:
            print(f"  {function}: {_verdict({arm: values[function, arm] for arm in names})}")


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def _verdict(values: dict[str, list[float]]) -> str:
    """Best by the mean; tied within two standard errors of the difference by seed."""
    others = {arm: v for arm, v in values.items() if arm != "skan"}
    rival = min(others, key=lambda arm: statistics.fmean(others[arm]))
    gaps = [a - b for a, b in zip(values["skan"], others[rival], strict=True)]
    gap = statistics.fmean(gaps)
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    word = "best" if gap <= 0 else "tied" if gap <= 2 * error else "behind"
    return f"{word}; best of the others {rival}, difference {gap:+.4f} ± {error:.4f}"


def cost(rounds: int) -> None:
    """Core-seconds of a pass, in turn; the choice is even, which is the most work for a mixed layer."""
    table: dict[str, dict[str, object]] = {}
    for features, batch in ((8, 1200), (64, 1024), (256, 512)):
        x = torch.randn(batch, features, requires_grad=True)
        pool = SKAN.bases
        layers: dict[str, torch.nn.Module] = {name: KANLinear(features, features, name) for name in pool}
        layers["mixed"] = MixedKANLinear(features, features, pool, [i % len(pool) for i in range(features)])
        layers["selective"] = SelectiveKANLinear(features, features, pool)
        runs = {name: _pass(layer, x) for name, layer in layers.items()}
        times = common.interleaved(runs, rounds)
        alone = statistics.fmean(times[name] for name in pool)
        table[f"{features} x {features}, batch {batch}"] = {
            **{f"{name} ms": 1e3 * seconds for name, seconds in times.items()},
            "mixed / mean": times["mixed"] / alone,
            "mixed / dearest": times["mixed"] / max(times[name] for name in pool),
        }
    common.table("forward and backward", table)


def _pass(layer: torch.nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return lambda: layer(x).square().sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("--functions", default="r1,r2,r3,r4,r5,r6,r7")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--init", default="branch")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--cost", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(common.environment())
    if given.cost:
        cost(15)
        return
    functions, seeds = given.functions.split(","), [int(seed) for seed in given.seeds.split(",")]
    protocol = Protocol(given.steps, given.init)
    rows = fill(given.record, functions, seeds, protocol, given.ablation)
    tables(rows, functions, seeds, protocol, given.ablation)


if __name__ == "__main__":
    main()

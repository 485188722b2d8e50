"""Do rungs spare compute, and at what price? Full curves are recorded once; schedulers are then replayed on them.

python tests/bench/bench_rungs.py FILE.jsonl [--data NAME --preset NAME --data-dir DIR --candidates N --seed S]
    [--lowering torch|c]
python tests/bench/bench_rungs.py FILE.jsonl --replay

Recording draws genomes (every other one a mutant of a published layer), turns away what fails the screen, the probe,
stability or quality, and measures the others on each network at every point of ``points``; it goes on with the file
where it was left. The replay takes the recorded candidates in their order, as a run with one worker would.
"""

import argparse
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
from scipy.stats import spearmanr

from layersearch.primitives.graph import Graph
from layersearch.primitives.seeds import Seeds
from layersearch.search.executors.base import run_timed, settle_torch
from layersearch.search.rerank import mean_value, ranked
from layersearch.search.schedulers.base import SCHEDULERS, Standing, rung_ends
from layersearch.search.screening import Screener
from layersearch.spaces.contracts import Evaluator, Job, Objective, Outcome, Stage
from layersearch.spaces.evonorm.published import PUBLISHED, pad
from layersearch.spaces.evonorm.settings import effective
from layersearch.spaces.evonorm.space import EvonormSpace, from_settings

__all__: list[str] = []

RATIOS = (2, 3, 4)
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TOP = 5
LEAST = 10  # steps of the earliest rung: the first batches say nothing


def points(quality: int, horizon: int) -> tuple[int, ...]:
    """Steps at which a curve is measured: those of the rungs of every ratio, and tenths of the training."""
    rungs = {horizon // ratio**k for ratio in RATIOS for k in (1, 2)}
    tenths = {round(fraction * horizon) for fraction in FRACTIONS}
    return tuple(sorted(step for step in {quality, *rungs, *tenths} if LEAST <= step < horizon))


# --- recording --------------------------------------------------------------------------------------------------------


def genomes(space: EvonormSpace, seed: int) -> Iterator[tuple[int, Graph]]:
    """Legal and new ones without end; the same for the same seed."""
    known = [pad(Graph(g.nodes, space.settings.numerics), space.settings.graph.nodes) for g in PUBLISHED.values()]
    drawn: list[Graph] = []
    screener = Screener(space, drawn.__getitem__)
    for number in itertools.count():
        rng = Seeds(seed).stream("rungs", number)
        if number < len(known):
            genome = known[number]
        elif number % 2:
            genome = rng.choice(known)
            for _ in range(rng.randint(1, 3)):
                genome = space.mutate(genome, rng)
        else:
            genome = space.sample(rng)
        drawn.append(genome)
        if screener.check(genome, number).state == "in_flight":
            yield number, genome


def record(path: Path, arguments: argparse.Namespace) -> None:
    base = effective("b", arguments.data, arguments.data_dir, arguments.preset)
    task = base["task"]
    steps = points(task["quality_steps"], task["fitness_steps"])
    settings = base | {"fidelity": {"rungs": list(steps)}, "lowering": {"name": arguments.lowering}}
    space = from_settings(settings)
    header = {"settings": settings | {"data_dir": None}, "seed": arguments.seed, "environment": common.environment()}
    rows = read(path)
    if rows and (rows[0]["settings"], rows[0]["seed"]) != (header["settings"], header["seed"]):
        raise SystemExit(f"{path} was recorded with other settings; give another file")
    settle_torch()
    evaluator = space.evaluator(space.load_data(), "cpu")
    done = {row["number"] for row in rows[1:]}
    n_passed = sum("curve" in row for row in rows[1:])
    with path.open("a") as file:
        if not rows:
            file.write(json.dumps(header) + "\n")
        for number, genome in genomes(space, arguments.seed):
            if n_passed >= arguments.candidates:
                return
            if number in done:
                continue
            row = curve(space, evaluator, number, genome, Seeds(arguments.seed))
            file.write(json.dumps(row) + "\n")
            file.flush()
            n_passed += "curve" in row
            print(f"#{number}: {row.get('rejected', 'measured')}; {n_passed} of {arguments.candidates}", flush=True)


def curve(space: EvonormSpace, evaluator: Evaluator, number: int, genome: Graph, seeds: Seeds) -> dict[str, Any]:
    """Every stage of one candidate, in the order of a run, until one is not passed."""
    checkpoints: dict[str, bytes | None] = {}
    measured: dict[str, Mapping[str, float]] = {}
    cpu_s: dict[str, float] = {}
    row: dict[str, Any] = {"number": number, "formula": space.formula(genome), "known_as": space.known_as(genome)}
    for stage in space.stages:
        network = stage.id.split(":")[1].partition("@")[0]
        job = Job(number, stage.id, space.to_json(genome), seeds.derive("stage", number, network))
        if stage.resumes is not None:
            job = Job(job.candidate, job.stage, job.genome, job.seed, checkpoint=checkpoints[stage.resumes])
        outcome: Outcome = run_timed(evaluator, job, None)[0]
        cpu_s[stage.id] = outcome.cpu_s
        if outcome.state != "passed":
            return row | {"rejected": f"{stage.id}: {outcome.reason}", "cpu_s": cpu_s}
        checkpoints[stage.id] = outcome.checkpoint
        if outcome.fitness:
            measured[stage.id] = outcome.fitness
    return row | {"curve": measured, "cpu_s": cpu_s}


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of the file; one that a kill cut off is dropped."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole))
    return [json.loads(line) for line in whole]


# --- replay -----------------------------------------------------------------------------------------------------------


@dataclass
class Replayed:
    """Where a candidate came to: ``n_done`` stages, and what they measured."""

    number: int
    n_done: int = 0
    seen: int = 0
    measured: dict[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Curves:
    """Recorded candidates: accuracy, and CPU time since the point before, by candidate, network and step."""

    objectives: tuple[Objective, ...]
    quality: int
    horizon: int
    values: Mapping[int, Mapping[tuple[str, int], float]]
    cpu_s: Mapping[int, Mapping[tuple[str, int], float]]

    def stages(self, rungs: Sequence[int]) -> list[Stage]:
        """One stage per network and rung, and the end; the funnel before it costs the same for every scheduler."""
        stages, before = [], 0
        for i, step in enumerate([*rungs, self.horizon]):
            rung = i if step < self.horizon else None
            stages += [Stage(f"{o.name}@{step}", "fitness", rung=rung, steps=step - before) for o in self.objectives]
            before = step
        return stages

    def cost_s(self, number: int, stage: Stage) -> float:
        """CPU time of the part of a training that a stage is: the recorded parts between its steps.

        Those include an evaluation each, so a replay with fewer rungs is charged for more evaluations than it makes,
        and ``straight`` for as many: the share that is saved is hardly touched.
        """
        network, _, step = stage.id.partition("@")
        begin = int(step) - stage.steps
        return math.fsum(s for (n, at), s in self.cpu_s[number].items() if n == network and begin < at <= int(step))

    def final(self, number: int) -> dict[str, float]:
        return {o.name: self.values[number][(o.name, self.horizon)] for o in self.objectives}


def curves(rows: Sequence[Mapping[str, Any]]) -> Curves:
    task = rows[0]["settings"]["task"]
    quality, horizon = task["quality_steps"], task["fitness_steps"]

    def key(stage: str) -> tuple[str, int]:
        name, _, rest = stage.partition(":")
        network, _, step = rest.partition("@")
        return network, int(step) if step else quality if name == "quality" else horizon

    values, cpu_s = {}, {}
    for row in rows[1:]:
        if "curve" in row:
            measured = {key(stage): fitness for stage, fitness in row["curve"].items()}
            values[row["number"]] = {k: fitness[k[0]] for k, fitness in measured.items()}
            parts = {s: t for s, t in row["cpu_s"].items() if s.split(":")[0] in ("quality", "fitness")}
            cpu_s[row["number"]] = {key(stage): seconds for stage, seconds in parts.items()}
    networks = [anchor["network"] for anchor in task["anchors"]]
    return Curves(tuple(Objective(n) for n in networks), quality, horizon, values, cpu_s)


def replay(found: Curves, name: str, knobs: Mapping[str, float], rungs: Sequence[int]) -> dict[str, float]:
    """Runs a scheduler over all candidates. Returns what it spared and how its ranking compares to the full one."""
    stages = found.stages(rungs)
    ends, scheduler = rung_ends(stages), SCHEDULERS[name].make(stages, found.objectives, knobs)
    tracks: dict[int, Replayed] = {}
    n_heard = 0
    cost_s = 0.0
    steps = 0

    def go_on(track: Replayed) -> None:
        nonlocal n_heard, cost_s, steps
        while True:
            stage = stages[track.n_done]
            network, _, step = stage.id.partition("@")
            track.measured[stage.id] = {network: found.values[track.number][(network, int(step))]}
            track.n_done += 1
            cost_s += found.cost_s(track.number, stage)
            steps += stage.steps
            standing = Standing(track.number, stage.id, ends.get(stage.id), dict(track.measured), track.seen)
            if track.n_done == len(stages):
                scheduler.heard(standing, "evaluated")
                n_heard += 1
                return
            decision = scheduler.decide(standing)
            if decision.verdict != "next":
                scheduler.heard(standing, "paused" if decision.verdict == "pause" else "stopped")
                n_heard += decision.verdict == "stop"
                return

    numbers = iter(sorted(found.values))
    while True:
        promotion = scheduler.promote()
        if promotion is not None:
            scheduler.promoted(promotion)
            go_on(tracks[promotion.candidate])
            continue
        number = next(numbers, None)
        if number is None:
            break
        tracks[number] = Replayed(number, seen=n_heard)
        go_on(tracks[number])
    return {
        **spared(found, stages, steps, cost_s),
        **agreement(found, tracks),
        "to the end": sum(track.n_done == len(stages) for track in tracks.values()),
    }


def spared(found: Curves, stages: Sequence[Stage], steps: int, cost_s: float) -> dict[str, float]:
    full_steps = len(found.values) * sum(stage.steps for stage in stages)
    full_s = math.fsum(found.cost_s(number, stage) for number in found.values for stage in stages)
    return {"steps saved": 1 - steps / full_steps, "core-s saved": 1 - cost_s / full_s}


def agreement(found: Curves, tracks: Mapping[int, Replayed]) -> dict[str, float]:
    """The ranking a scheduler leaves: who came further is better, then by the mean of the latest measurements."""
    full = [mean_value(found.final(n), found.objectives) for n in tracks]

    def left(track: Replayed) -> tuple[int, float]:
        latest: dict[str, float] = {}
        for fitness in track.measured.values():
            latest.update(fitness)
        return track.n_done, math.fsum(latest.values()) / len(latest)

    order = sorted(tracks, key=lambda n: left(tracks[n]))
    place = {number: i for i, number in enumerate(order)}
    best = ranked({n: found.final(n) for n in tracks}, found.objectives)
    by_mean = sorted(tracks, key=lambda n: -mean_value(found.final(n), found.objectives))
    return {
        "Spearman": float(spearmanr([place[n] for n in tracks], full).statistic),
        f"top {TOP} kept": len({*order[-TOP:]} & {*by_mean[:TOP]}) / min(TOP, len(tracks)),
        "best kept": float(best[0] in order[-TOP:]),
    }


def rungs_of(found: Curves, ratio: int, least: int) -> list[int]:
    """Two steps ``horizon / ratio**k``, where they are ``least`` or later."""
    there = {step for (_, step) in next(iter(found.values.values()))}
    steps = [found.horizon // ratio**k for k in (1, 2)]
    return sorted(step for step in steps if step >= least and step in there)


def show(path: Path) -> None:
    rows = read(path)
    found = curves(rows)
    print(f"{len(found.values)} curves of {len(rows) - 1} candidates; {rows[0]['environment']}")
    table: dict[str, Mapping[str, float]] = {"straight": replay(found, "straight", {}, [])}
    for ratio in RATIOS:
        for label, rungs in (("quality", [found.quality]), ("geometric", rungs_of(found, ratio, LEAST))):
            if rungs and found.quality < found.horizon:
                table[f"asha {ratio}, {label}"] = replay(found, "asha", {"eta": ratio}, rungs)
    for margin in (0.0, 1.0, 2.0, 3.0):
        table[f"racing {margin:g}, quality"] = replay(found, "racing", {"margin": margin}, [found.quality])
    common.table(f"{rows[0]['settings']['task']['data']}: saved, and the ranking against full training", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--replay", action="store_true", help="do not record")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lowering", choices=("torch", "c"), default="torch")
    arguments = parser.parse_args()
    if not arguments.replay:
        record(arguments.file, arguments)
    show(arguments.file)


if __name__ == "__main__":
    main()

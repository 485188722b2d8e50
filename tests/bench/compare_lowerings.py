"""Does the ranking of candidates survive a change of the lowering? Retrains those of a finished run by two lowerings.

python tests/bench/compare_lowerings.py RUN_DIR RESULTS.jsonl [--candidates 40] [--seeds 3] [--data-dir DIR]

Protocol: the candidates are the first N of the run's order, seeds left in (those of a record that was begun stay, also
when the run goes on meanwhile). Each is trained on every network of the run, with both lowerings at the same seeds
(those of the init and of the data), one after the other on one core, without the rejecting stages. Spearman's rank
correlation of the mean over networks between lowerings at the same seed is compared with that between seeds within a
lowering. One line per training goes to RESULTS.jsonl; called again, it goes on there.
"""

import argparse
import itertools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from common import environment, show
from scipy.stats import spearmanr

from layersearch.primitives.seeds import Seeds
from layersearch.search.executors.base import run_timed
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import Job, JsonObject
from layersearch.spaces.evonorm.evaluate import EvonormEvaluator
from layersearch.spaces.evonorm.settings import LoweringSettings, parse
from layersearch.spaces.evonorm.space import EvonormSpace

__all__: list[str] = []

LOWERINGS = ("torch", "c")


def trainings(numbers: list[int], seeds: int, networks: tuple[str, ...]) -> Iterator[tuple[int, int, str, str]]:
    """Candidate, seed, network and lowering: the pairs that are compared come next to each other."""
    for number, seed, network in itertools.product(numbers, range(seeds), networks):
        for lowering in LOWERINGS if (number + seed) % 2 else LOWERINGS[::-1]:
            yield number, seed, network, lowering


def measure(arguments: argparse.Namespace) -> list[JsonObject]:
    """Runs what is not yet in the file of results. Returns all rows."""
    rows = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    with StoreReader(arguments.run_dir) as reader:
        recorded = reader.meta("space")["settings"]
        begun = dict.fromkeys([*(row["candidate"] for row in rows), *reader.order()])
        numbers = list(begun)[: arguments.candidates]
        genomes = {number: reader.genome(number) for number in numbers}
    if arguments.data_dir is not None:
        recorded |= {"data_dir": arguments.data_dir}
    settings = parse(recorded)
    data = EvonormSpace(settings).load_data()
    evaluators = {
        name: EvonormEvaluator(settings.model_copy(update={"lowering": LoweringSettings(name=name)}), data, "cpu")
        for name in LOWERINGS
    }
    done = {(row["candidate"], row["seed"], row["network"], row["lowering"]) for row in rows}
    with arguments.results.open("a") as file:
        for number, seed, network, lowering in trainings(numbers, arguments.seeds, settings.task.networks):
            if (number, seed, network, lowering) in done:
                continue
            job = Job(number, f"fitness:{network}", genomes[number], Seeds(seed).derive("lowerings", number))
            outcome, _ = run_timed(evaluators[lowering], job, None)
            rows.append(
                {"candidate": number, "seed": seed, "network": network, "lowering": lowering, "state": outcome.state}
                | {"accuracy": outcome.fitness.get(network), "cpu_s": outcome.cpu_s, "wall_s": outcome.duration_s}
            )
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    return rows


def summary(rows: list[JsonObject]) -> dict[str, object]:
    """Rank correlations and costs over the candidates that every training of which has ended well."""
    failed = {row["candidate"] for row in rows if row["accuracy"] is None}
    seeds = sorted({row["seed"] for row in rows})
    numbers = sorted({row["candidate"] for row in rows} - failed)
    if len(numbers) < 3:
        raise SystemExit(f"ranks need at least 3 candidates that can be trained, got {len(numbers)}; name a larger run")
    of: dict[tuple[str, int, int], list[float]] = {}
    spent: dict[str, float] = dict.fromkeys(LOWERINGS, 0.0)
    for row in rows:
        if row["candidate"] not in failed:
            of.setdefault((row["lowering"], row["seed"], row["candidate"]), []).append(row["accuracy"])
            spent[row["lowering"]] += row["cpu_s"]
    ranking = {
        (lowering, seed): [statistics.fmean(of[lowering, seed, number]) for number in numbers]
        for lowering in LOWERINGS
        for seed in seeds
    }
    between_lowerings = [spearmanr(ranking["torch", seed], ranking["c", seed]).statistic for seed in seeds]
    between_seeds = [
        spearmanr(ranking[lowering, a], ranking[lowering, b]).statistic
        for lowering in LOWERINGS
        for a, b in itertools.combinations(seeds, 2)
    ]
    differences = [c - t for seed in seeds for t, c in zip(ranking["torch", seed], ranking["c", seed], strict=True)]
    evaluations = len(numbers) * len(seeds)
    return {
        "candidates, and those with a failed training": f"{len(numbers)}, {len(failed)}",
        "Spearman between lowerings, same seed": ", ".join(f"{r:.3f}" for r in between_lowerings),
        "Spearman between seeds, same lowering": ", ".join(f"{r:.3f}" for r in between_seeds),
        "mean accuracy, c - torch": f"{statistics.fmean(differences):+.4f} ± {statistics.stdev(differences):.4f}",
        **{f"core-seconds per evaluation, {name}": spent[name] / evaluations for name in LOWERINGS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(environment("scipy"))
    show(str(arguments.run_dir), summary(measure(arguments)))


if __name__ == "__main__":
    main()

"""S-ConvKAN against convolutions of each single basis of its pool and against conv + ReLU, of equal parameters.

python tests/bench/compare_sconvkan.py RESULTS.jsonl [--data-dir DIR] [--data digits,mnist] [--seeds 3] [--steps N]
python tests/bench/compare_sconvkan.py RESULTS.jsonl --summary

Protocol: preset ``smoke`` of the skan space, its design ``sconvkan`` and those of its baselines that have one basis of
that pool, or ReLU: as many parameters as ``sconvkan`` may have, or the nearest below that whole widths give. Training
is that of a re-rank, a seed trains all arms, and each trained network looks at the test images once. Starts and sizes
are those of a search (of 28 and 32 pixels too: networks that train in seconds, far from the best on these sets). One
line per training goes to RESULTS.jsonl; called again, it goes on there.
"""

import argparse
import json
import math
import statistics
from pathlib import Path

import common
import torch
from image_trainings import rows_of, spread, trained_and_tested

from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan.images.network import count_parameters
from layersearch.spaces.kan.images.published import CONV_RELU
from layersearch.spaces.skan.images.genome import AnyImageGenome, selects
from layersearch.spaces.skan.images.network import most_parameters
from layersearch.spaces.skan.images.space import ImageSKANSpace
from layersearch.spaces.skan.settings import effective
from layersearch.spaces.skan.space import from_settings

__all__: list[str] = []

SELECTING = "sconvkan"
SETS = ("digits", "mnist", "fashion_mnist", "cifar10")


def arms(space: ImageSKANSpace) -> dict[str, AnyImageGenome]:
    """The selecting network first, then what it is compared with."""
    reference = space.seeds()[SELECTING]
    assert selects(reference)
    others = (*reference.layer.bases, CONV_RELU)
    return {SELECTING: reference, **{name: genome for name, genome in space.baselines().items() if name in others}}


def size(space: ImageSKANSpace, genome: AnyImageGenome) -> int:
    """Parameters; the most that it may have, of a network that selects."""
    sizes = (space.settings.in_channels, space.settings.classes)
    return most_parameters(genome, *sizes) if selects(genome) else count_parameters(genome, *sizes)


def fill(results: Path, data: str, data_dir: str | None, seeds: int, overrides: JsonObject) -> None:
    """Makes the trainings of a set that the record has not."""
    settings = effective(None, data, data_dir, "smoke", overrides)
    space = from_settings(settings)
    if not isinstance(space, ImageSKANSpace):
        raise SystemExit(f"--data must name sets of images, got {data}; use for example digits")
    about = {part: settings[part] for part in ("network", "task")}
    done = {(row["seed"], row["arm"]) for row in rows_of(results, about)}
    evaluator = space.evaluator(space.load_data(), "cpu")
    for seed in range(seeds):
        for name, genome in arms(space).items():
            if (seed, name) in done:
                continue
            found, _ = trained_and_tested(evaluator, space.to_json(genome), seed, "compare_sconvkan")
            row = {
                "settings": about,
                "data": data,
                "seed": seed,
                "arm": name,
                "parameters": size(space, genome),
                **found,
            }
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print({key: value for key, value in row.items() if key not in ("settings", "selection")}, flush=True)


def summary(results: Path) -> None:
    """One table per set; how far the selecting network is ahead of each arm on the test part, seed by seed."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    for data in dict.fromkeys(row["data"] for row in rows):
        ended = {(r["arm"], r["seed"]): r for r in rows if r["data"] == data and r["state"] == "passed"}
        names = list(dict.fromkeys(name for name, _ in ended))
        seeds = sorted(set.intersection(*({s for n, s in ended if n == name} for name in names)) if names else ())
        if SELECTING not in names or not seeds:
            print(f"{data}: no seed has been trained with all arms")
            continue
        table: dict[str, dict[str, object]] = {}
        for name in names:
            mine = [ended[name, seed] for seed in seeds]
            table[name] = {part: spread([row[part] for row in mine]) for part in ("holdout", "test")}
            table[name] |= {"parameters": mine[0]["parameters"], "core-s": statistics.fmean(r["cpu_s"] for r in mine)}
            gaps = [ended[SELECTING, seed]["test"] - ended[name, seed]["test"] for seed in seeds]
            error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan
            table[name]["ahead of it ± s. e."] = (
                "" if name == SELECTING else f"{statistics.fmean(gaps):+.4f} ± {error:.4f}"
            )
        common.table(f"{data}: accuracy, mean ± standard deviation over seeds {seeds}", table)
        for seed in seeds:
            print(f"  {data}, seed {seed}: channels by basis {kept(ended[SELECTING, seed]['selection'])}")


def kept(selection: JsonObject) -> dict[str, int]:
    """How many channels have each basis."""
    chosen = [name for layer in selection["layers"] for name in layer]
    return {name: chosen.count(name) for name in sorted(set(chosen))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--data", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    if not given.summary:
        torch.set_num_threads(1)
        print(common.environment())
        overrides = {} if given.steps is None else {"task.rerank_steps": given.steps}
        for data in given.data.split(","):
            fill(given.results, data, given.data_dir, given.seeds, overrides)
    summary(given.results)


if __name__ == "__main__":
    main()

"""GR-KAN against an ordinary feed-forward part in a small vision transformer of as many parameters.

python tests/bench/compare_kat.py RESULTS.jsonl --data fashion_mnist --data-dir DIR [--preset small] [--steps N]
    [--seeds 5]

Protocol: ``kat-vit`` and ``vit-gelu`` of the kan space in the reference size of the preset, by the same code, seeds and
horizon: the re-rank and the test of a search. Then the conversion: a trained ``vit-gelu`` becomes GR-KAN by
``to_group_rational``, shown training images; logits are compared on test images it was not shown. One line per training
goes to RESULTS.jsonl; called again, it goes on there.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from common import environment, show
from image_trainings import rows_of, spread, trained_and_tested

from layersearch.primitives import to_group_rational
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan.images.evaluate import ImageKANEvaluator
from layersearch.spaces.kan.images.network import build, count_parameters
from layersearch.spaces.kan.images.space import ImageKANSpace
from layersearch.spaces.kan.settings import effective
from layersearch.spaces.kan.space import from_settings
from layersearch.spaces.tasks.checkpoint import MODEL, unpack

__all__: list[str] = []

KAT, MLP = "kat-vit", "vit-gelu"
SHOWN, COMPARED = 512, 1000
TOLERANCE = 1e-5  # of each activation; that of the outputs is 1e-3


def trainings(seeds: int) -> Iterator[tuple[int, str]]:
    """Seed and design: the pairs that are compared come next to each other."""
    for seed in range(seeds):
        for name in (KAT, MLP) if seed % 2 else (MLP, KAT):
            yield seed, name


def measure(
    space: ImageKANSpace, evaluator: ImageKANEvaluator, results: Path, seeds: int, settings: JsonObject
) -> list[JsonObject]:
    """Runs what is not yet in the file of results. Returns the rows of these settings."""
    rows: list[JsonObject] = rows_of(results, settings)
    done = {(row["seed"], row["design"]) for row in rows}
    with results.open("a") as file:
        for seed, name in trainings(seeds):
            if (seed, name) in done:
                continue
            genome = space.baselines()[name]
            found, checkpoint = trained_and_tested(evaluator, space.to_json(genome), seed, "compare_kat")
            row: JsonObject = {"settings": settings, "seed": seed, "design": name, **found}
            row["parameters"] = count_parameters(genome, space.settings.in_channels, space.settings.classes)
            if name == MLP and checkpoint is not None:
                row |= converted(space, evaluator, checkpoint)
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    return rows


def converted(space: ImageKANSpace, evaluator: ImageKANEvaluator, checkpoint: bytes) -> JsonObject:
    """What changes when a trained transformer is turned into GR-KAN."""
    settings, task = space.settings, evaluator.task
    model = build(space.baselines()[MLP], settings.in_channels, settings.classes).eval()
    tensors, _ = unpack(checkpoint)
    model.load_state_dict({n.removeprefix(MODEL): t for n, t in tensors.items() if n.startswith(MODEL)})
    shown, _ = task.fixed_batch(SHOWN)
    conversion = to_group_rational(model, shown, tolerance=TOLERANCE)
    unseen, labels = task.images("test", COMPARED)
    with torch.no_grad():
        before, after = model(unseen), conversion.model.eval()(unseen)
    return {
        "deviation shown": conversion.output_deviation,
        "deviation unseen": float((after - before).abs().max()),
        "largest logit": float(before.abs().max()),
        "accuracy before": float((before.argmax(1) == labels).double().mean()),
        "accuracy after": float((after.argmax(1) == labels).double().mean()),
        "degrees": [layer.degree for layer in conversion.layers],
    }


def summary(rows: list[JsonObject]) -> dict[str, object]:
    """Means and spreads over seeds, and paired differences."""
    ended = {(row["design"], row["seed"]): row for row in rows if row["state"] == "passed"}
    seeds = sorted(seed for name, seed in ended if name == KAT and (MLP, seed) in ended)
    if not seeds:
        raise SystemExit("a seed must be trained with both designs to be compared, and none is; run it again")
    found: dict[str, object] = {"seeds": len(seeds)}
    for name in (KAT, MLP):
        of = [ended[name, seed] for seed in seeds]
        found[f"{name}: parameters, core-seconds"] = (
            f"{of[0]['parameters']}, {statistics.fmean(row['cpu_s'] for row in of):.0f}"
        )
        for part in ("holdout", "test"):
            found[f"{name}: {part}"] = spread([row[part] for row in of])
    for part in ("holdout", "test"):
        differences = [ended[KAT, seed][part] - ended[MLP, seed][part] for seed in seeds]
        found[f"{KAT} - {MLP}, {part}, paired"] = spread(differences)
    conversions = [ended[MLP, seed] for seed in seeds]
    for key in ("deviation shown", "deviation unseen"):
        found[f"conversion: {key}, worst"] = f"{max(row[key] for row in conversions):.1e}"
    found["conversion: answers that change the accuracy"] = max(
        abs(row["accuracy after"] - row["accuracy before"]) for row in conversions
    )
    found["conversion: degrees"] = sorted({degree for row in conversions for degree in row["degrees"]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {} if arguments.steps is None else {"task.rerank_steps": arguments.steps}
    settings = effective(None, arguments.data, arguments.data_dir, arguments.preset, overrides)
    space = from_settings(settings)
    if not isinstance(space, ImageKANSpace):
        raise SystemExit(f"--data must be a set of images, got {arguments.data}; use for example digits")
    evaluator = ImageKANEvaluator(space.settings, space.load_data(), "cpu")
    print(environment("scipy"))
    measured = {part: settings[part] for part in ("network", "task")}
    rows = measure(space, evaluator, arguments.results, arguments.seeds, measured)
    show(f"{arguments.data}, {arguments.preset}, {settings['task']['rerank_steps']} steps", summary(rows))


if __name__ == "__main__":
    main()

"""Screen and dedup: genomes per core-second, what is turned away, and the trainings that saves.

python tests/bench/bench_screen.py [N]
"""

import random
import sys
from collections import Counter

from common import core_seconds, environment, show

from layersearch.search.screening import Screener
from layersearch.spaces.contracts import Genome
from layersearch.spaces.evonorm.settings import effective
from layersearch.spaces.evonorm.space import EvonormSpace, from_settings

__all__: list[str] = []


def space(**overrides: float) -> EvonormSpace:
    return from_settings(effective("b", "digits", None, "smoke", {f"graph.{k}": v for k, v in overrides.items()}))


def random_stream(source: EvonormSpace, n: int) -> list[Genome]:
    rng = random.Random(0)
    return [source.sample(rng) for _ in range(n)]


def drift_stream(source: EvonormSpace, n: int) -> list[Genome]:
    """Children of an aging population of 100 in which every new function survives: the worst case for dedup's cost."""
    rng = random.Random(0)
    population = list(source.seeds().values()) * 25
    stream: list[Genome] = []
    screener = Screener(source, stream.__getitem__)
    for number in range(n):
        child = source.mutate(rng.choice(population), rng)
        stream.append(child)
        if screener.check(child, number).state == "in_flight":
            population = [*population[1:], child]
    return stream


def measure(title: str, source: EvonormSpace, stream: list[Genome]) -> None:
    screener = Screener(source, stream.__getitem__)
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    def run() -> None:
        for number, genome in enumerate(stream):
            verdict = screener.check(genome, number)
            states[verdict.state] += 1
            reasons[verdict.reason or verdict.state] += 1

    seconds = core_seconds(run)
    alive = states["duplicate"] + states["in_flight"]
    show(
        f"{title}: {len(stream)} genomes",
        {
            "genomes per core-second (goal ≥ 1000)": len(stream) / seconds,
            "screened out": states["screened_out"] / len(stream),
            "duplicates": states["duplicate"] / len(stream),
            "new": states["in_flight"] / len(stream),
            "unique share of those that pass the screen": states["in_flight"] / max(1, alive),
            "trainings without screen and dedup / with": len(stream) / max(1, states["in_flight"]),
            "trainings without dedup / with": alive / max(1, states["in_flight"]),
        },
    )
    for reason, n in reasons.most_common(8):
        print(f"      {reason:<44} {n / len(stream):.4f}")


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(environment())
    default, paper = space(), space(p_aggregate=0.5, p_connect=0.0)
    default.probe(default.baselines()["bn-relu"])  # imports and fixed inputs
    measure("random, defaults", default, random_stream(default, n))
    measure("random, the paper's uniform choice of 24 ops", paper, random_stream(paper, n))
    measure("drift", default, drift_stream(default, n))


if __name__ == "__main__":
    main()

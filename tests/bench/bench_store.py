"""Cost of an event in the store as a run grows, its size on disk, and how long a long run takes to resume.

An event is one candidate: asked (one commit) and told with its last result (another).

python tests/bench/bench_store.py [EVENTS]
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import core_seconds, environment, show, table
from toy_space import toy_spec

from layersearch.search.candidate import Candidate, Finish, StageResult
from layersearch.search.runner import RunEvent, Runner, RunSettings
from layersearch.search.store import Store
from layersearch.search.store_schema import STORE_FILE
from layersearch.spaces.contracts import JsonObject, Outcome
from layersearch.spaces.evonorm.settings import effective
from layersearch.spaces.evonorm.space import from_settings

__all__: list[str] = []

WINDOW = 1000
POINTS = (WINDOW, 10_000, 100_000)
GOAL_RATIO, GOAL_RESUME_S = 1.5, 10.0
KEY_LENGTH = 32
SETTINGS = RunSettings(evaluations=10_000_000, population=100, seed=0)


def run_until(run_dir: Path, kind: str) -> None:
    """Begins or resumes a toy run and leaves it at the first event of ``kind``."""

    def stop(event: RunEvent) -> None:
        if event.kind == kind:
            raise KeyboardInterrupt  # ends the run at once

    Runner(run_dir, toy_spec(size=10_000_000), SETTINGS, stop).run()


class Writer:
    """Writes what the engine would, into the store of a toy run: two candidates in five are rejected.

    Genomes are those of evonorm, for their size; the toy space reads ``n`` alone.
    """

    def __init__(self, run_dir: Path, genomes: list[JsonObject]) -> None:
        run_dir.mkdir()
        run_until(run_dir, "start")
        self.store = Store(run_dir)
        self.genomes = genomes
        self.rng = random.Random(0)
        self.n = 0

    def write(self) -> None:
        n = self.n
        self.n += 1
        genome = {"n": n, **self.genomes[n % len(self.genomes)]}
        key = f"{n:0{KEY_LENGTH}x}"
        parents = (self.rng.randrange(n),) if n else ()
        self.store.asked([Candidate(n, n, "evolved", genome, key, key, key, parents, seen=n)])
        if n % 5 < 2:
            outcome = Outcome("rejected", "accuracy after 100 steps", self.rng.random(), 0.2, duration_s=1.0, cpu_s=1.0)
            result, finish = StageResult(n, "quality", outcome), Finish("rejected", "quality", outcome.reason, told=n)
        else:
            fitness = {"o0": self.rng.random(), "o1": self.rng.random()}
            outcome = Outcome("passed", metrics={"train.o1": 0.5}, fitness={"o1": fitness["o1"]}, cpu_s=1.0)
            result, finish = StageResult(n, "fitness:o1", outcome), Finish("evaluated", fitness=fitness, told=n)
        self.store.told(result, finish, elapsed_s=float(n))

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.store.run_dir.glob(f"{STORE_FILE}*"))


def compare(big: Writer, fresh: Writer) -> dict[str, object]:
    """The next ``WINDOW`` events of one store and the first of another, event by event in turn."""
    cpu: dict[Writer, list[float]] = {big: [], fresh: []}
    wall: dict[Writer, list[float]] = {big: [], fresh: []}
    for _ in range(WINDOW):
        for writer in (big, fresh):
            start = time.perf_counter()
            cpu[writer].append(core_seconds(writer.write))
            wall[writer].append(time.perf_counter() - start)
    return {
        "core-us median": 1e6 * statistics.median(cpu[big]),
        "core-us mean": 1e6 * statistics.mean(cpu[big]),
        "wall us median": 1e6 * statistics.median(wall[big]),
        "× median": statistics.median(cpu[big]) / statistics.median(cpu[fresh]),
        "× mean": statistics.mean(cpu[big]) / statistics.mean(cpu[fresh]),
        "× wall median": statistics.median(wall[big]) / statistics.median(wall[fresh]),
    }


def measure(folder: Path, events: int) -> None:
    space = from_settings(effective("b", "digits", None, "smoke"))
    rng = random.Random(0)
    genomes = [space.to_json(space.sample(rng)) for _ in range(WINDOW)]
    big = Writer(folder / "big", genomes)
    rows: dict[str, dict[str, object]] = {}
    for point in sorted({p for p in POINTS if p < events} | {events}):
        while big.n < point - WINDOW:
            big.write()
        fresh = Writer(folder / f"fresh-{point}", genomes)
        rows[f"up to event {point}"] = compare(big, fresh)
        fresh.store.close()
    table(f"last {WINDOW} events, × = against the first {WINDOW} of a new store in turn (goal ≤ {GOAL_RATIO})", rows)
    counting, ordering = core_seconds(big.store.counts), core_seconds(big.store.order)
    n = big.n
    big.store.close()
    command = [sys.executable, __file__, "--resume", str(big.store.run_dir)]
    wall, cpu = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    show(
        f"a run of {n} events",
        {
            "bytes per event on disk, after closing": big.size() / n,
            "resume up to the first dispatch, core-seconds": cpu,
            f"  / goal of {GOAL_RESUME_S:g} s": cpu / GOAL_RESUME_S,
            "resume up to the first dispatch, wall s": wall,
            "all counts, core-seconds": counting,
            "order of all evaluated, core-seconds": ordering,
        },
    )


def resume(run_dir: Path) -> None:
    """In a fresh process, after imports; prints wall seconds and core-seconds."""
    start = time.perf_counter()
    cpu = core_seconds(lambda: run_until(run_dir, "asked"))
    print(time.perf_counter() - start, cpu)


def main() -> None:
    if sys.argv[1:2] == ["--resume"]:
        resume(Path(sys.argv[2]))
        return
    events = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS[-1]
    if events < 2 * WINDOW:
        raise SystemExit(f"EVENTS must be at least {2 * WINDOW}, got {events}")
    print(environment())
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), events)


if __name__ == "__main__":
    main()

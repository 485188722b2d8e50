"""What a cluster of one machine adds to the work of its stages, beside the pool: scaling, cost per job, cheap ones.

CPU is that of all processes, Ray's own included, beyond what was measured around each stage.

python tests/bench/bench_ray.py [SCALE]    SCALE 0.1 tries it out, 1 (default) takes about ten minutes
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import core_seconds, environment, table
from toy_burn import burn, burn_spec

from layersearch.search.executors.base import EXECUTORS, Executor
from layersearch.spaces.contracts import Job

__all__: list[str] = []

GOAL_SCALING = 0.95
GOAL_MS = {"ray": 1.0, "pool": 0.2}
GOAL_CHEAP = 0.10
_TICKS = os.sysconf("SC_CLK_TCK")


def tree_cpu_s() -> float:
    """CPU time of this process and all its descendants, those included that have ended and were waited for."""
    parents: dict[int, int] = {}
    cpu: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            cpu[int(folder.name)] = sum(map(int, fields[11:15])) / _TICKS

    def is_ours(pid: int) -> bool:
        while pid not in (0, os.getpid()):
            pid = parents.get(pid, 0)
        return pid != 0

    return sum(seconds for pid, seconds in cpu.items() if is_ours(pid))


@contextmanager
def executor(backend: str, workers: int, iterations: int) -> Iterator[Executor]:
    """With every worker ready."""
    spec = burn_spec(iterations=iterations, checkpoint_bytes=0)
    made = EXECUTORS[backend](spec, spec.build(), workers, "cpu")
    try:
        drive(made, 2 * workers)
        yield made
    finally:
        made.close(now=True)


def drive(made: Executor, jobs: int) -> float:
    """Runs ``jobs`` jobs, as many at once as keep it busy. Returns their work, as measured, in core-s."""
    given = done = 0
    work_s = 0.0
    while done < jobs:
        while given < jobs and given - done < made.capacity:
            made.submit(Job(given, "quality", {"n": given}, seed=given))
            given += 1
        for _, outcome in made.results():
            assert outcome.state == "passed", outcome.reason
            work_s += outcome.cpu_s
            done += 1
    return work_s


def measure(backend: str, workers: int, jobs: int, iterations: int) -> dict[str, float]:
    with executor(backend, workers, iterations) as made:
        cpu_s, begin = tree_cpu_s(), time.perf_counter()
        work_s = drive(made, jobs)
        wall_s = time.perf_counter() - begin
        beyond_s = tree_cpu_s() - cpu_s - work_s
    return {
        "jobs": jobs,
        "jobs per s": jobs / wall_s,
        "core-ms of work": 1e3 * work_s / jobs,
        "core-ms beyond": 1e3 * beyond_s / jobs,
        "beyond %": 100 * beyond_s / work_s,
    }


def main() -> None:
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    n = 2_000_000
    speed = n / min(core_seconds(lambda: burn(n)) for _ in range(3))
    print(environment("ray"))
    rows: dict[str, dict[str, object]] = {}
    for backend in ("pool", "ray"):
        rates = {}
        for workers in (1, 2):
            jobs = max(1, int(20 * scale)) * workers
            row = measure(backend, workers, jobs, int(2.0 * speed))
            rates[workers] = row["jobs per s"]
            rows[f"{backend} {workers}"] = {**row, "of ideal": rates[workers] / workers / rates[1]}
    table(f"scaling on stages of 2 s (goal ≥ {GOAL_SCALING:g} of ideal)", rows)
    rows = {b: dict(measure(b, 2, int(2_000 * scale), int(0.01 * speed))) for b in ("pool", "ray")}
    table(f"stages of 10 ms (goal {', '.join(f'{b} ≤ {ms:g} ms' for b, ms in GOAL_MS.items())} beyond)", rows)
    rows = {b: dict(measure(b, 2, int(100_000 * scale), int(0.001 * speed))) for b in ("pool", "ray")}
    table(f"cheap candidates, 1 ms each (goal for ray ≤ {100 * GOAL_CHEAP:g} % beyond)", rows)


if __name__ == "__main__":
    main()

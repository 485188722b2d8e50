"""What the engine adds to the work of its stages: stages of 10 s, 1 s and 10 ms, inline and with two workers.

Work is what was measured around each stage. Overhead is seen from two sides: CPU of runner and workers beyond it, and
the gap from the end of a stage to the start of the next in the same worker, which holds everything the engine does
in between: result sent, checkpoint written, events committed, next candidate proposed and screened, job sent. Screen
and dedup are those of a toy space; bench_screen.py has the cost of real ones.

python tests/bench/bench_overhead.py [STAGES_OF_10_S]
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import core_seconds, environment, table
from toy_burn import burn, burn_spec

from layersearch.search.runner import RunEvent, Runner, RunSettings
from layersearch.search.store_reader import StoreReader

__all__: list[str] = []

GOAL = 0.02
CHECKPOINT_BYTES = 500_000  # more than a network of the smoke preset and its momenta
"""Checkpoint handed from the first stage of a candidate to the second."""
BACKENDS = {"inline": 1, "pool": 2}


def iterations_per_second() -> float:
    """Of ``burn``, per core-second."""
    n = 2_000_000
    burn(n)
    return n / statistics.median(core_seconds(lambda: burn(n)) for _ in range(3))


def measure(run_dir: Path, backend: str, stage_s: float, stages: int, speed: float) -> dict[str, object]:
    """One search of ``stages`` stages."""
    run_dir.mkdir()
    first_ask: list[tuple[float, float]] = []

    def note(event: RunEvent) -> None:
        if event.kind == "asked" and not first_ask:
            first_ask.append((time.perf_counter(), time.process_time()))

    workers = BACKENDS[backend]
    settings = RunSettings(evaluations=stages // 2, population=16, backend=backend, workers=workers)
    spec = burn_spec(iterations=int(stage_s * speed), checkpoint_bytes=CHECKPOINT_BYTES)
    start = time.perf_counter()
    Runner(run_dir, spec, settings, note).run()
    begin, begin_cpu = first_ask[0]
    cpu_s = time.process_time() - begin_cpu
    with StoreReader(run_dir) as store:
        results = [r.outcome for c in store.candidates() for r in store.results(c.number)]
    work_cpu, work_wall = sum(o.cpu_s for o in results), sum(o.duration_s for o in results)
    gaps = [o.metrics["gap_s"] for o in results if "gap_s" in o.metrics]
    gap_cpus = [o.metrics["gap_cpu_s"] for o in results if "gap_cpu_s" in o.metrics]
    # Inline, the gaps are part of the runner's own CPU.
    beyond = cpu_s - work_cpu if backend == "inline" else cpu_s + sum(gap_cpus)
    return {
        "stages": len(results),
        "core-s each": work_cpu / len(results),
        "CPU ms per stage": 1e3 * beyond / len(results),
        "CPU %": 100 * beyond / work_cpu,
        "gap ms mean": 1e3 * statistics.mean(gaps),
        "gap ms median": 1e3 * statistics.median(gaps),
        "gap wall %": 100 * sum(gaps) / work_wall,
        "start s": begin - start,
    }


def main() -> None:
    long = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    speed = iterations_per_second()
    print(environment())
    plan = {10.0: long, 1.0: 3 * long, 0.01: 100 * long}
    rows: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage_s, stages in plan.items():
            for backend, workers in BACKENDS.items():
                name = f"{stage_s:g} s, {backend} {workers}"
                rows[name] = measure(Path(folder) / f"{backend}-{stage_s:g}", backend, stage_s, stages, speed)
    table(f"engine beyond the work of the stages (goal ≤ {100 * GOAL:g} % of stages of 10 s)", rows)
    print(
        "\n  CPU: of runner and workers from the first proposal to the end of the run, beyond the work"
        "\n  gap: wall time from the end of a stage to the start of the next in the same worker"
        "\n  start: wall time from the call to the first proposal; workers start meanwhile"
    )


if __name__ == "__main__":
    main()

"""What the benchmarks share: core-seconds, interleaved rounds, and a line that says where they ran.

Importing it lets a benchmark import what the tests share, too.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).parents[1] / "helpers"))

__all__ = ["core_seconds", "environment", "interleaved", "show", "table"]


def environment(*packages: str) -> str:
    """Date, machine, its load, and versions, for the row that a number goes into."""
    versions = " ".join(f"{p} {version(p)}" for p in ("torch", *packages))
    machine = f"{platform.machine()} {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return f"{date.today()} · {machine} · Python {platform.python_version()} · {versions}"


def core_seconds(run: Callable[[], object]) -> float:
    """CPU time of this process for one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median core-seconds of each, measured in turn so that drift of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(core_seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, rows: Mapping[str, object]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<60} {_short(value)}", flush=True)


def table(title: str, rows: Mapping[str, Mapping[str, object]]) -> None:
    """Rows by name; the columns are those of the first row."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n  {'':<28}" + "".join(f"{column:>18}" for column in columns))
    for name, row in rows.items():
        print(f"  {name:<28}" + "".join(f"{_short(row[column]):>18}" for column in columns), flush=True)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

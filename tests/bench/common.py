"""What the benchmarks share: core-seconds, interleaved rounds, and a line that says where they ran."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")

__all__ = ["core_seconds", "environment", "interleaved", "show"]


def environment(*packages: str) -> str:
    """Date, machine and versions, for the row that a number goes into."""
    versions = " ".join(f"{p} {version(p)}" for p in ("torch", *packages))
    machine = f"{platform.machine()} {os.cpu_count()} cores"
    return f"{date.today()} · {machine} · Python {platform.python_version()} · {versions}"


def core_seconds(run: Callable[[], object]) -> float:
    """CPU time of this process for one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median core-seconds of each, measured in turn so that drift of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(core_seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, rows: dict[str, object]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<48} {value:.4g}" if isinstance(value, float) else f"  {name:<48} {value}")

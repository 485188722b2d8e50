"""What the command line costs before it does anything: ``search --help`` beside ``python -c pass``, in fresh processes.

python tests/bench/bench_help.py [PROCESSES]
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import environment, show, table

__all__: list[str] = []

COMMANDS = {
    "search --help": [str(Path(sys.executable).with_name("search")), "--help"],
    "search evolve --help": [str(Path(sys.executable).with_name("search")), "evolve", "--help"],
    "python -c pass": [sys.executable, "-c", "pass"],
}
GOAL_S = 0.3


def measure(command: list[str]) -> tuple[float, float]:
    """Wall and core-seconds of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} must end with 0, got {process.returncode}")
    return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(environment("typer", "rich"))
    for command in COMMANDS.values():  # byte code and files into the cache
        measure(command)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(n):
        for name, command in COMMANDS.items():
            times[name].append(measure(command))
    rows = {
        name: {
            "core-s median": statistics.median(cpu for _, cpu in values),
            "core-s worst": max(cpu for _, cpu in values),
            "wall s median": statistics.median(wall for wall, _ in values),
            "wall s best": min(wall for wall, _ in values),
        }
        for name, values in times.items()
    }
    table(f"{n} processes each, in turn", rows)
    help_row, plain_row = rows["search --help"], rows["python -c pass"]
    show(
        f"goal < {GOAL_S} s",
        {
            "search --help, core-seconds / goal": help_row["core-s median"] / GOAL_S,
            "search --help / python -c pass, core-seconds": help_row["core-s median"] / plain_row["core-s median"],
            "search --help / python -c pass, wall": help_row["wall s median"] / plain_row["wall s median"],
        },
    )


if __name__ == "__main__":
    main()

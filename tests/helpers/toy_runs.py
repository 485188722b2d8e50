"""Short runs on the toy space, in this process or in one that can be killed."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toy_space import toy_spec

from layersearch.errors import StoreError
from layersearch.search.runner import RunEvent, Runner, RunSettings
from layersearch.search.store_content import content
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject

HELPERS = Path(__file__).parent
PATHS = os.pathsep.join(filter(None, [str(HELPERS), os.environ.get("PYTHONPATH")]))
"""For a process that imports what tests share, and the same layersearch as this one."""


def run_toy(run_dir: Path, space: dict[str, Any] | None = None, on_event: Any = None, **settings: Any) -> str:
    """A run (or resume) in ``run_dir``, which is made."""
    run_dir.mkdir(exist_ok=True)
    given = {"evaluations": 25, "population": 8, "seed": 3, "deterministic": True} | settings
    return Runner(run_dir, toy_spec(**(space or {})), RunSettings(**given), on_event).run()


def interruption(rng: random.Random, least: int, end: int) -> Callable[[RunEvent], None]:
    """To be called after each event of one run: Ctrl-C after ``least`` to ``end`` - 1 of them; half of the times twice,
    which ends at once what is in the middle of running."""
    left = rng.randrange(least, end)

    def interrupt(_: RunEvent) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)
            if rng.random() < 0.5:
                signal.raise_signal(signal.SIGINT)

    return interrupt


def content_of(run_dir: Path) -> JsonObject:
    with StoreReader(run_dir) as reader:
        return content(reader)


def start_toy(run_dir: Path, space: dict[str, Any] | None = None, **settings: Any) -> "subprocess.Popen[str]":
    """The same in a process group of its own; ``processes_of`` finds it and its children by their environment."""
    code = (
        f"import pathlib, toy_runs; print(toy_runs.run_toy(pathlib.Path({str(run_dir)!r}), {space!r}, **{settings!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": PATHS, "TOY_RUN": str(run_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(run_dir: Path) -> list[int]:
    """Processes that belong to a run: those with its mark in their environment (Linux)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if f"TOY_RUN={run_dir}\0".encode() in environment + b"\0" and state != "Z":
                found.append(int(folder.name))
    return found


def n_told(run_dir: Path) -> int:
    """Number of stage results, quickly."""
    try:
        with StoreReader(run_dir) as reader:
            return int(reader._db.execute("SELECT count(*) FROM results").fetchone()[0])
    except StoreError:
        return 0

"""Whole runs while workers and nodes are lost at random: nothing told is lost or twice, the result is as ever."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from toy_runs import content_of, run_toy

from layersearch.search.executors import _ray_workers as workers_module
from layersearch.spaces.contracts import JsonObject

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = {"sleep_s": 0.1, "limit_s": 2.0}
SETTINGS = {"evaluations": 20, "seed": 3, "population": 16, "deterministic": True, "lookahead": 4}
FAULTS = ("kill a worker", "stop a worker", "kill a node")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> JsonObject:
    """An undisturbed run, in this process."""
    run_dir = tmp_path_factory.mktemp("whole") / "a"
    run_toy(run_dir, SPACE | {"sleep_s": 0.0}, **SETTINGS)
    return content_of(run_dir)


def at_work(raylet: int | None = None) -> list[int]:
    """Ray workers (of one node) that are in the middle of a call: that is when they have this title."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            title = (folder / "cmdline").read_text()
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if title.startswith("ray::RayWorker.run") and raylet in (None, parent):
                found.append(int(folder.name))
    return found


def strike(fault: str, cluster: Any, node: Any, rng: random.Random, log: Path, n_starts: int) -> bool:
    """Waits for a stage that is being run, after ``n_starts`` were begun, and ends its worker or node."""
    raylet = node.all_processes["raylet"][0].process.pid
    end = time.monotonic() + 60
    while time.monotonic() < end:
        begun = len(log.read_text().splitlines()) if log.exists() else 0
        there = at_work(raylet if fault == "kill a node" else None)
        if begun >= n_starts and there:
            time.sleep(rng.random() * 0.05)
            if fault == "kill a node":
                cluster.remove_node(node, allow_graceful=False)
            else:
                os.kill(rng.choice(there), signal.SIGKILL if fault == "kill a worker" else signal.SIGSTOP)
            return True
        time.sleep(0.01)
    return False


@contextlib.contextmanager
def another_node(cluster: Any) -> Iterator[Any]:
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    try:
        yield node
    finally:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def test_faults_at_random_change_nothing(
    tmp_path: Path, ray_cluster: Any, whole: JsonObject, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_GRACE_S", 0.5)
    for i in range(rounds + 1):
        rng, fault = random.Random(i), FAULTS[i % len(FAULTS)]
        run_dir, log = tmp_path / str(i), tmp_path / f"{i}.log"
        with another_node(ray_cluster) as node:
            with ThreadPoolExecutor(1) as other:
                struck = other.submit(strike, fault, ray_cluster, node, rng, log, rng.randrange(3, 40))
                assert run_toy(run_dir, SPACE | {"log": str(log)}, backend="ray", workers=4, **SETTINGS) == "finished"
            assert struck.result(), fault
        again = {job: n for job, n in Counter(log.read_text().splitlines()).items() if n > 1}
        assert again, f"{fault}: a stage was running, and ran again"
        assert len(again) <= (2 if fault == "kill a node" else 1)
        content = content_of(run_dir)
        assert content.pop("space") != whole["space"]
        assert content == {key: value for key, value in whole.items() if key != "space"}, fault

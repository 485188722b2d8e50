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
from ray_nodes import kill_node, parent, raylet_of
from toy_runs import content_of, run_toy

from layersearch.search.executors import _ray_workers as workers_module
from layersearch.spaces.contracts import JsonObject

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = {"sleep_s": 0.2, "limit_s": 2.0}
SETTINGS = {"evaluations": 20, "seed": 3, "population": 16, "deterministic": True, "lookahead": 4}
FAULTS = ("kill a worker", "stop a worker", "kill a node")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> JsonObject:
    """An undisturbed run, in this process."""
    run_dir = tmp_path_factory.mktemp("whole") / "a"
    run_toy(run_dir, SPACE | {"sleep_s": 0.0}, **SETTINGS)
    return content_of(run_dir)


def in_a_stage(moments: Path) -> list[int]:
    """Processes that have begun a stage and not ended it, the latest first."""
    open_: dict[int, None] = {}
    for line in moments.read_text().splitlines() if moments.exists() else []:
        moment, pid = line.split()
        open_.pop(int(pid), None)
        if moment == "begin":
            open_[int(pid)] = None
    return [*reversed(open_)]


def strike(fault: str, node: Any, moments: Path, n_starts: int) -> bool:
    """Once ``n_starts`` stages were begun, ends the worker or node that is the last to have begun one."""
    end = time.monotonic() + 60
    n_seen = 0
    while time.monotonic() < end:
        there = in_a_stage(moments)
        n = moments.read_text().count("begin") if moments.exists() else 0
        fresh, n_seen = n > n_seen, n
        if fresh and n >= n_starts and there and (fault != "kill a node" or parent(there[0]) == raylet_of(node)):
            if fault == "kill a node":
                kill_node(node)
            else:
                os.kill(there[0], signal.SIGKILL if fault == "kill a worker" else signal.SIGSTOP)
            return True
        time.sleep(0.005)
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
        n_starts, fault = random.Random(i).randrange(3, 40), FAULTS[i % len(FAULTS)]
        run_dir, log, moments = tmp_path / str(i), tmp_path / f"{i}.log", tmp_path / f"{i}.moments"
        with another_node(ray_cluster) as node:
            with ThreadPoolExecutor(1) as other:
                struck = other.submit(strike, fault, node, moments, n_starts)
                space = SPACE | {"log": str(log), "moments": str(moments)}
                assert run_toy(run_dir, space, backend="ray", workers=4, **SETTINGS) == "finished"
            assert struck.result(), fault
        again = {job: n for job, n in Counter(log.read_text().splitlines()).items() if n > 1}
        assert again, f"{fault}: a stage was running, and ran again"
        assert len(again) <= (2 if fault == "kill a node" else 1)
        content = content_of(run_dir)
        assert content.pop("space") != whole["space"]
        assert content == {key: value for key, value in whole.items() if key != "space"}, fault

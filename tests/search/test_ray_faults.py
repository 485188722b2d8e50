"""Whole runs while workers and nodes are lost at random: nothing told is lost or twice, the result is as ever."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import kill_node, parent, raylet_of, stop_node
from toy_runs import content_of, run_toy

from layersearch.search.executors import base
from layersearch.search.runner import RunEvent
from layersearch.spaces.contracts import JsonObject

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPACE = {"sleep_s": 0.2, "limit_s": 2.0}
SETTINGS = {"evaluations": 20, "seed": 3, "population": 16, "deterministic": True, "lookahead": 4}
FAULTS = ("kill a worker", "stop a worker", "kill a node", "stop a node", "add a node")


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


def begun(moments: Path) -> int:
    return moments.read_text().count("begin") if moments.exists() else 0


def caught(pid: int, moments: Path) -> bool:
    """Stops a process; whether it is in a stage then: it may have ended the one it was seen in. If not, it goes on."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < end, "it does not stop"
        time.sleep(0.001)
    if pid in in_a_stage(moments):
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def strike(fault: str, node: Any, moments: Path, n_starts: int) -> bool:
    """Once ``n_starts`` stages were begun, strikes the worker or node that is the last to have begun one."""
    end = time.monotonic() + 60
    n_seen = 0
    while time.monotonic() < end:
        there = in_a_stage(moments)
        fresh, n_seen = begun(moments) > n_seen, begun(moments)
        is_there = there and (not fault.endswith("node") or parent(there[0]) == raylet_of(node))
        if fresh and n_seen >= n_starts and is_there and caught(there[0], moments):
            match fault:
                case "kill a node":
                    kill_node(node)
                case "stop a node":
                    stop_node(node)
                case "kill a worker":
                    os.kill(there[0], signal.SIGKILL)
            return True
        time.sleep(0.005)
    return False


@contextlib.contextmanager
def another_node(cluster: Any) -> Iterator[Any]:
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    try:
        yield node
    finally:
        kill_node(node)
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def run_with(fault: str, n_starts: int, cluster: Any, run_dir: Path, moments: Path, log: Path) -> None:
    """A run that is struck after ``n_starts`` stages."""
    struck: list[Future[bool]] = []
    with contextlib.ExitStack() as nodes, ThreadPoolExecutor(1) as other:

        def send(what: str, n: int) -> None:
            node = nodes.enter_context(another_node(cluster))
            struck.append(other.submit(strike, what, node, moments, n))

        def on_event(_: RunEvent) -> None:
            if not struck and begun(moments) >= n_starts // 8:
                send("kill a node", 0)

        if fault != "add a node":
            send(fault, n_starts)
        space = SPACE | {"log": str(log), "moments": str(moments)}
        assert run_toy(run_dir, space, on_event, backend="ray", workers=4, **SETTINGS) == "finished"
        assert struck[0].result(), fault


def test_faults_at_random_change_nothing(
    tmp_path: Path, ray_cluster: Any, whole: JsonObject, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that joins late leaves again in the middle of a stage."""
    monkeypatch.setattr(base, "_GRACE_S", 0.5)
    for i in range(max(rounds, len(FAULTS))):
        n_starts, fault = random.Random(i).randrange(3, 40), FAULTS[i % len(FAULTS)]
        run_dir, log = tmp_path / str(i), tmp_path / f"{i}.log"
        run_with(fault, n_starts, ray_cluster, run_dir, tmp_path / f"{i}.moments", log)
        again = {job: n for job, n in Counter(log.read_text().splitlines()).items() if n > 1}
        assert again, f"{fault}: a stage was running, and ran again"
        assert len(again) <= (2 if fault.endswith("node") else 1)
        content = content_of(run_dir)
        assert content.pop("space") != whole["space"]
        assert content == {key: value for key, value in whole.items() if key != "space"}, fault

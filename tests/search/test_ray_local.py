"""Ray on this machine alone: open to nobody else, deaf to signals, and gone when its runner is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_catalog import toy_cli
from toy_runs import HELPERS, PATHS, content_of, n_told, processes_of, run_toy, start_toy

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux")]

SETTINGS = {"evaluations": 40, "seed": 3, "population": 8}
_LISTENING = "0A"
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


@pytest.fixture(autouse=True)
def as_for_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the tests tell Ray."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def listeners(pids: list[int]) -> list[str]:
    """Addresses, as the kernel writes them, at which the processes take connections."""
    sockets = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(os.readlink(fd))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTENING and f"socket:[{inode}]" in sockets:
                found.append(local.split(":")[0])
    return found


def wait_until_told(run_dir: Path, n: int) -> None:
    end = time.monotonic() + 90
    while n_told(run_dir) < n and time.monotonic() < end:
        time.sleep(0.02)
    assert n_told(run_dir) >= n


def wait_until_gone(run_dir: Path) -> list[int]:
    end = time.monotonic() + 20
    while (left := processes_of(run_dir)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def test_it_is_closed_to_others_survives_signals_and_ends_with_its_runner(tmp_path: Path) -> None:
    run_dir, log = tmp_path / "a", tmp_path / "log"
    space = {"sleep_s": 0.02, "log": str(log)}
    runner = start_toy(run_dir, space, backend="ray", workers=2, **SETTINGS)
    wait_until_told(run_dir, 20)
    pids = processes_of(run_dir)
    addresses = listeners(pids)
    assert len(addresses) >= 5, "those of Ray were found"
    assert set(addresses) <= set(_LOOPBACK)
    os.killpg(runner.pid, signal.SIGTERM)  # as job schedulers do
    out, err = runner.communicate(timeout=60)
    assert (out, err, runner.returncode) == ("interrupted\n", "", 0)
    assert wait_until_gone(run_dir) == []
    jobs = log.read_text().splitlines()
    assert len({*jobs}) == len(jobs), "no stage was cut short"

    runner = start_toy(run_dir, space, backend="ray", workers=2, **SETTINGS)
    wait_until_told(run_dir, n_told(run_dir) + 10)
    runner.kill()
    runner.communicate()
    assert wait_until_gone(run_dir) == []

    assert run_toy(run_dir, space, backend="inline", **SETTINGS) == "finished"
    run_toy(tmp_path / "b", {"log": None, "sleep_s": 0.0}, **SETTINGS)
    mine, other = content_of(run_dir), content_of(tmp_path / "b")
    del mine["space"], other["space"]
    assert mine == other


def start_command(run_dir: Path, *command: str) -> "subprocess.Popen[str]":
    """The command line in a process; ``processes_of`` finds it and its children by their environment."""
    return subprocess.Popen(
        [sys.executable, str(HELPERS / "toy_catalog.py"), *command, "--runs-dir", str(run_dir.parent)],
        env={**os.environ, "PYTHONPATH": PATHS, "TOY_RUN": str(run_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_run_goes_on_elsewhere_when_the_head_of_its_cluster_was_killed(tmp_path: Path) -> None:
    """Stages are told for as long as the head may come back; then a sentence, and ``resume`` on another cluster."""
    run_dir, log = tmp_path / "a", tmp_path / "log"
    sets = ("--set", "sleep_s=0.8", "--set", f"log={log}")
    ray = ("--backend", "ray", "--workers", "2", "--evaluations", "45", "--deterministic", "--lookahead", "4")
    runner = start_command(run_dir, "evolve", "--space", "toy", "--run", "a", *ray, *sets)
    wait_until_told(run_dir, 10)
    (gcs,) = (pid for pid in processes_of(run_dir) if b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(gcs, signal.SIGKILL)
    n = n_told(run_dir)
    out, err = runner.communicate(timeout=90)
    assert (out, runner.returncode) == ("", 1)
    assert err.splitlines()[-1].startswith(
        "search: the head of the cluster must answer, but it has not for 30 s; resume"
    )
    assert n_told(run_dir) > n + 20, "workers went on without it"
    assert wait_until_gone(run_dir) == []
    n_jobs = len(log.read_text().splitlines())

    runner = start_command(run_dir, "resume", "a")
    out, err = runner.communicate(timeout=120)
    assert runner.returncode == 0, err
    jobs = log.read_text().splitlines()
    assert len(jobs) - len({*jobs}) <= 4, "only what workers were given ran again: one stage, and the next"
    assert len(jobs) > n_jobs + 10
    assert toy_cli("evolve", "--space", "toy", "--run", "b", "--runs-dir", str(tmp_path), "--backend", "inline",
                   "--evaluations", "45", "--lookahead", "4") == 0  # fmt: skip
    mine, other = content_of(run_dir), content_of(tmp_path / "b")
    del mine["space"], other["space"]
    assert mine == other

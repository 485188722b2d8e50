"""Ray on this machine alone: open to nobody else, deaf to signals, and gone when its runner is."""

import os
import signal
import time
from pathlib import Path

import pytest
from toy_runs import content_of, n_told, processes_of, run_toy, start_toy

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

"""A head with token authentication on this machine: a run is submitted, watched, fetched, exported; another stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layersearch.search.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TINY = {
    "task.batch": 8, "task.quality_steps": 2, "task.fitness_steps": 4, "task.rerank_steps": 2, "task.rerank_width": 1,
    "task.validation_cap": 20, "funnel.quality_chance": 0, "funnel.early_step": 0, "funnel.stability_steps": 2,
}  # fmt: skip
SETS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
RUN = ("evolve", "--space", "evonorm", "--population", "4", "--rerank-top", "1", "--workers", "2", *SETS)


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of its job API. Ports are far from the defaults, so that a head of the user is not met."""
    pytest.importorskip("aiohttp_cors", reason="the head of a cluster needs ray[default]")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    (tmp_path / "token").write_text("of this head " * 4)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [
        sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", "--port=26379", "--dashboard-host=127.0.0.1", "--dashboard-port=28265",
        "--num-cpus=2", "--object-store-memory=200000000",
    ]  # fmt: skip
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while "Ray runtime started" not in (tmp_path / "head.log").read_text() and time.monotonic() < end:
            assert process.poll() is None, (tmp_path / "head.log").read_text()
            time.sleep(0.2)
        yield "http://127.0.0.1:28265"
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what its dashboard leaves
        except ProcessLookupError:
            process.wait()


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    return out or err


def wait_for(capsys: pytest.CaptureFixture[str], words: str, *arguments: str) -> str:
    end = time.monotonic() + 240
    while words not in (text := said(capsys, *arguments)) and time.monotonic() < end:
        assert "FAILED" not in text, text
        time.sleep(1)
    assert words in text
    return text


def test_a_run_on_a_cluster_from_submit_to_export(
    head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--address", head)
    job = json.loads(said(capsys, "submit", *at, "--json", "--", *RUN, "--evaluations", "2"))["job"]
    wait_for(capsys, "SUCCEEDED", "status", job, *at)
    assert "Running entrypoint" in said(capsys, "logs", job, "--follow", *at)
    runs = str(tmp_path / "here")
    said(capsys, "fetch", job, *at, "--runs-dir", runs)
    assert json.loads(said(capsys, "show", job, "--runs-dir", runs, "--json"))["counts"]["evaluated"] == 2
    said(capsys, "export", job, "--runs-dir", runs, "-o", str(tmp_path / "layer.py"))
    assert "class " in (tmp_path / "layer.py").read_text()

    job = json.loads(said(capsys, "submit", *at, "--json", "--", *RUN, "--evaluations", "500"))["job"]
    wait_for(capsys, "evaluated", "status", job, *at)
    assert f"{job}: stopped" in said(capsys, "stop", job, *at)
    wait_for(capsys, "STOPPED", "status", job, *at)
    assert "interrupted; go on with: search resume" in said(capsys, "logs", job, *at)

    monkeypatch.setenv("RAY_AUTH_TOKEN", "another " * 5)
    assert "the token must be that of the cluster" in said(capsys, "status", job, *at, code=2)

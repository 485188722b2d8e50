"""The command line as a process: how fast it answers, what it leaves out, and how it ends."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_runs import HELPERS, PATHS

from layersearch.errors import StoreError
from layersearch.search.store_reader import StoreReader

HEAVY = ("torch", "ray", "optuna", "deap", "sklearn", "scipy", "numpy", "pydantic", "rich", "yaml", "triton", "onnx")
TOY = ("evolve", "--space", "toy", "--seed", "1", "--run", "mine")


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(HELPERS / "toy_catalog.py"), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "LAYERSEARCH_DATA"} | {"PYTHONPATH": PATHS}
    pipe = subprocess.PIPE
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
    try:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, heard)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def evaluated(run_dir: Path) -> int:
    try:
        with StoreReader(run_dir) as reader:
            return reader.counts()["evaluated"]
    except (StoreError, sqlite3.Error):  # it is being made
        return 0


@pytest.mark.parametrize(
    ("arguments", "typers_own"),
    [(["--help"], []), (["evolve", "--help"], ["pydantic"]), (["tune", "--help"], ["pydantic"])],
)
def test_help_answers_at_once_and_imports_nothing_heavy(arguments: list[str], typers_own: list[str]) -> None:
    code = (
        "import sys, time; began = time.process_time()\n"
        "from layersearch.search.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
        "print(time.process_time() - began, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: search" in done.stdout
    imported, seconds = done.stderr.splitlines()
    assert imported in ("0 []", f"0 {typers_own}")
    assert float(seconds) < 0.3  # CPU seconds; 0.05 on an idle machine


def test_the_installed_command_refuses_with_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "layersearch.search", "evolve", "--space", "evonrom"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("search: unknown space 'evonrom'; did you mean 'evonorm'? (known: evonorm, kan, ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_went_away_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "layersearch.search", "list"]
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inline", "pool"])
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path, backend: str) -> None:
    slow = (*TOY, "--backend", backend, "--set", "sleep_s=0.03", "--evaluations", "500", "--json")
    process = start(tmp_path, *slow)
    wait_for(lambda: evaluated(tmp_path / "runs/mine") > 0)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "interrupted; go on with: search resume mine\n" in err
    found = json.loads(out)
    assert found["state"] == "interrupted"
    assert 0 < found["counts"]["evaluated"] < 500


def test_ctrl_c_before_anything_runs(tmp_path: Path) -> None:
    process = start(tmp_path, *TOY)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT, 1), err  # the others while Python itself starts


@pytest.mark.slow
def test_a_killed_run_is_interrupted_and_resumes(tmp_path: Path) -> None:
    process = start(tmp_path, *TOY, "--backend", "inline", "--set", "sleep_s=0.02", "--evaluations", "12")
    wait_for(lambda: evaluated(tmp_path / "runs/mine") > 0)
    os.killpg(process.pid, signal.SIGSTOP)  # or it would be over before the others have begun
    while_running = start(tmp_path, "show", "mine", "--json")
    out, err = while_running.communicate(timeout=20)
    assert json.loads(out)["state"] == "running", err
    second = start(tmp_path, "resume", "mine")
    _, err = second.communicate(timeout=20)
    assert second.returncode == 2
    assert f"held by process {process.pid}" in err
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    out, _ = start(tmp_path, "show", "mine", "--json").communicate(timeout=20)
    assert json.loads(out)["state"] == "interrupted"
    out, err = start(tmp_path, "resume", "mine", "--json").communicate(timeout=20)
    assert json.loads(out)["counts"]["evaluated"] == 12
    assert json.loads(out)["state"] == "finished"

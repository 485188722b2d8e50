"""Jobs of a cluster, against a stand-in for Ray's job API: what is sent, what is said, and what is refused."""

import errno
import json
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toy_catalog import toy_cli
from toy_runs import content_of, run_toy

from layersearch.errors import RunError, StoreError
from layersearch.search.cluster import api as api_module
from layersearch.search.cluster.jobs import entrypoint_of
from layersearch.search.cluster.pack import pack, unpack
from layersearch.search.lock import RunLock
from layersearch.search.runs import RECIPE_FILE

TOKEN = "secret" * 6


class Head(BaseHTTPRequestHandler):
    """Keeps jobs, and runs those that pack a run."""

    jobs: ClassVar[dict[str, Any]]
    logs: ClassVar[dict[str, str]]
    odd: ClassVar[str | None]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: object) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def may(self) -> bool:
        if self.odd == "page":
            self.answer(200, b"<html>hello</html>")
        elif self.odd == "moved":
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
        elif self.odd == "broken":
            self.answer(500, b"Traceback\n ValueError: no")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b"Unauthorized")
        else:
            return True
        return False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if not self.may():
            return
        if self.path == "/api/jobs/":
            job = body["submission_id"]
            command = shlex.split(body["entrypoint"])
            self.jobs[job] = body | {"status": "RUNNING"}
            if "layersearch.search.cluster.pack" in command:
                done = subprocess.run([sys.executable, *command[2:]], capture_output=True, text=True, check=False)
                self.logs[job] = f"Running entrypoint\n{done.stdout}{done.stderr}"
                self.jobs[job]["status"] = "FAILED" if done.returncode else "SUCCEEDED"
            self.answer(200, {"submission_id": job, "job_id": job})
        elif (job := self.path.split("/")[3]) in self.jobs:
            was = self.jobs[job]["status"]
            self.jobs[job]["status"] = "STOPPED"
            self.answer(200, {"stopped": was == "RUNNING"})
        else:
            self.answer(404, b"no")

    def do_GET(self) -> None:
        if not self.may():
            return
        _, _, _, job, *rest = self.path.split("/")
        if job not in self.jobs:
            self.answer(404, b"does not exist")
        else:
            self.answer(200, {"logs": self.logs.get(job, "")} if rest else self.jobs[job])


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Head]]:
    """Where ``--address`` points by default."""
    Head.jobs, Head.logs, Head.odd = {}, {}, None
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Head)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.chdir(tmp_path)
    yield Head
    server.shutdown()
    server.server_close()


def submitted(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert toy_cli("submit", "--json", "--", *arguments) == 0
    return str(json.loads(capsys.readouterr().out)["job"])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert toy_cli(*arguments) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_a_run_is_submitted_with_what_was_asked_for(head: type[Head], capsys: pytest.CaptureFixture[str]) -> None:
    job = submitted(capsys, "evolve", "--space", "toy", "--set", "log=it's $(here)")
    sent = head.jobs[job]
    words = shlex.split(sent["entrypoint"].replace('"$HOME"', "HOME"))
    assert words[:5] == ["exec", "python", "-m", "layersearch.search", "evolve"]
    assert words[5:9] == ["--space", "toy", "--set", "log=it's $(here)"]
    assert words[9:] == ["--run", job, "--runs-dir", "HOME/layersearch-runs", "--backend", "ray", "--json"]
    assert sent["metadata"] == {"run": job, "runs_dir": '"$HOME"/layersearch-runs'}
    assert int(sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 60


def test_help_submits_nothing(head: type[Head], capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli("submit", "--", "evolve", "--help") == 0
    assert capsys.readouterr().out.count("--population") == 1
    assert not head.jobs


def test_what_was_given_stays(tmp_path: Path) -> None:
    given = ["evolve", "--run=mine", "--runs-dir", "/shared/my runs", "--backend", "pool", "--json"]
    command, place = entrypoint_of(given, "job")
    assert shlex.split(command)[4:] == given
    assert place == {"run": "mine", "runs_dir": "'/shared/my runs'"}
    for named in (["mine"], ["--evaluations", "50", "mine"], ["--json", "mine", "--minutes=3"]):
        command, place = entrypoint_of(["resume", *named], "job")
        assert "--run " not in command
        assert place["run"] == "mine"


def test_a_runtime_environment_may_be_given(
    head: type[Head], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "env.yaml").write_text("pip: [layersearch]\nenv_vars: {A: b}\n")
    assert toy_cli("submit", "--runtime-env", "env.yaml", "--", "evolve", "--space", "toy") == 0
    said = capsys.readouterr().out
    (job,) = head.jobs
    assert f"search fetch {job} --address http://127.0.0.1" in said
    environment = head.jobs[job]["runtime_env"]
    assert environment["pip"] == ["layersearch"]
    assert environment["env_vars"]["A"] == "b"
    (tmp_path / "env.yaml").write_text("env_vars: 3\n")
    assert "env_vars must be" in refusal(
        capsys, "submit", "--runtime-env", "env.yaml", "--", "evolve", "--space", "toy"
    )


def test_status_logs_and_stop(head: type[Head], capsys: pytest.CaptureFixture[str]) -> None:
    job = submitted(capsys, "evolve", "--space", "toy")
    head.logs[job] = "noise\nmine: search 0:01, 2 of 12 evaluated\nmine: search 0:02, 3 of 12 evaluated\nmore\n"
    assert toy_cli("status", job) == 0
    said = capsys.readouterr().out
    assert f"{job}: running, run {job} in" in said
    assert "3 of 12 evaluated" in said
    assert "2 of 12" not in said
    assert toy_cli("logs", job) == 0
    assert capsys.readouterr().out == head.logs[job]
    assert toy_cli("stop", job) == 0
    said = capsys.readouterr().out
    assert f"{job}: stopped\n  go on by: search submit --address http" in said
    assert said.endswith(f"-- resume {job}\n"), "in the folder that is the default"
    assert toy_cli("logs", job, "--follow") == 0, "it has ended"
    capsys.readouterr()
    assert toy_cli("stop", job, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"job": job, "stopped": False}
    job = submitted(capsys, "resume", "--runs-dir", "/shared/my runs", "mine")
    assert toy_cli("stop", job) == 0
    assert capsys.readouterr().out.endswith("-- resume mine --runs-dir '/shared/my runs'\n")


def test_a_run_comes_back(head: type[Head], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert toy_cli("evolve", "--space", "toy", "--run", "mine", "--runs-dir", str(there)) == 0
    capsys.readouterr()
    job = submitted(capsys, "evolve", "--space", "toy", "--run", "mine", "--runs-dir", str(there))
    assert toy_cli("fetch", job, "--runs-dir", "here") == 0
    assert "fetched here/mine" in capsys.readouterr().out
    assert content_of(tmp_path / "here" / "mine") == content_of(there / "mine")
    assert toy_cli("show", "mine", "--runs-dir", "here") == 0
    assert toy_cli("resume", "mine", "--runs-dir", "here", "--evaluations", "15") == 0
    capsys.readouterr()
    assert "here/mine exists; replace it by --force" in refusal(capsys, "fetch", job, "--runs-dir", "here")
    assert toy_cli("fetch", job, "--runs-dir", "here", "--force") == 0
    assert content_of(tmp_path / "here" / "mine") == content_of(there / "mine")


def test_a_run_that_is_not_there(head: type[Head], capsys: pytest.CaptureFixture[str]) -> None:
    job = submitted(capsys, "evolve", "--space", "toy", "--run", "nothing", "--runs-dir", "nowhere")
    said = refusal(capsys, "fetch", job, code=1)
    assert "the run must come back, but it did not (a run must be named, but there is none named 'nothing'" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--", "export", "mine"), "what is submitted must be one of evolve, resume, tune with its options"),
        (("--", "evolve", "--evalutions", "3"), "unknown option '--evalutions'; did you mean '--evaluations'?"),
        (("--address", "h:6379", "--", "evolve"), "must be that of a Ray job API, http://HEAD:8265, got 'h:6379'"),
        (("--address", "http://u:p@h:1", "--", "evolve"), "must be that of a Ray job API"),
        (("--address", "http://h:x", "--", "evolve"), "must be that of a Ray job API"),
        (("--address", "http://127.0.0.1:1", "--", "evolve"), "nobody answers at http://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_submitted(
    head: type[Head], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert says in refusal(capsys, "submit", *arguments)
    assert head.jobs == {}


def test_a_wrong_token_and_odd_heads(
    head: type[Head], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a job must be there, got 'a/b c'" in refusal(capsys, "status", "a/b c")
    for odd, says, code in (
        ("page", "what is there is none; the head needs ray[default]", 2),
        ("moved", "refused (302", 1),
        ("broken", "refused (500 Traceback ValueError: no)", 1),
    ):
        head.odd = odd
        assert says in refusal(capsys, "status", "x", code=code)
    head.odd = None
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    assert "the token must be that of the cluster" in refusal(capsys, "status", "x")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "the token must be that of the cluster" in refusal(capsys, "status", "x")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "nowhere")
    assert "the token must be a readable file, but nowhere is not" in refusal(capsys, "status", "x")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert "--address must be given" in refusal(capsys, "status", "x")


def test_a_head_that_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_LIMIT_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        said = refusal(capsys, "status", "x", "--address", f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert "timed out" in said


def test_a_torn_or_foreign_pack_is_refused(tmp_path: Path) -> None:
    run_dir = tmp_path / "a"
    run_toy(run_dir, evaluations=3)
    (run_dir / RECIPE_FILE).write_text("space: toy\n")
    text = f"log\n{pack(run_dir)}\nlog\n"
    assert content_of(unpack(text, tmp_path / "b", "mine")) == content_of(run_dir)
    for torn in ("", text[:1000], text.replace("layersearch-end", ""), text[:200] + "AAAA" + text[204:]):
        with pytest.raises(RunError, match="must come back whole"):
            unpack(torn, tmp_path / "c", "mine")
    assert not (tmp_path / "c").exists()


def test_a_run_with_odd_letters_in_its_path_is_packed(tmp_path: Path) -> None:
    run_dir = tmp_path / "ru#ns %41" / "a"
    run_dir.parent.mkdir()
    run_toy(run_dir, evaluations=3)
    assert content_of(unpack(pack(run_dir), tmp_path / "b", "mine")) == content_of(run_dir)


def test_force_replaces_a_run_that_nobody_runs_once_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, evaluations in (("new", 3), ("old", 2)):
        run_toy(tmp_path / name, evaluations=evaluations)
        (tmp_path / name / RECIPE_FILE).write_text("space: toy\n")
    text, old = pack(tmp_path / "new"), content_of(tmp_path / "old")
    with RunLock(tmp_path / "old"), pytest.raises(StoreError, match="held by process"):
        unpack(text, tmp_path, "old", force=True)
    with monkeypatch.context() as full:
        full.setattr("os.fsync", lambda _: raise_full())
        with pytest.raises(RunError, match="the disk must have room"):
            unpack(text, tmp_path, "old", force=True)
    assert content_of(tmp_path / "old") == old
    assert content_of(unpack(text, tmp_path, "old", force=True)) == content_of(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "old"}


def raise_full() -> None:
    raise OSError(errno.ENOSPC, "no space left")

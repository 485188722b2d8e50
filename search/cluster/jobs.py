"""``search submit``, ``status``, ``logs``, ``stop`` and ``fetch``: a run as a job of a Ray cluster."""

import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layersearch.errors import BadInputError, RecipeError, RunError
from layersearch.search.cluster.api import JobsApi
from layersearch.search.cluster.pack import unpack
from layersearch.search.command_line import options_given, parse
from layersearch.search.recipe_yaml import load_file
from layersearch.search.show import json_text
from layersearch.spaces.contracts import JsonObject

__all__ = ["address_of", "entrypoint_of", "fetch", "logs", "status", "stop", "submit"]

_COMMANDS = ("evolve", "resume", "tune")
_RUNS_DIR = '"$HOME"/layersearch-runs'  # a shell word; of whoever runs the head
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_POLL_S = 2.0
_PACK_S = 300.0
_STOP_S = 120
_PROGRESS = re.compile(r"^[\w.-]+: .*(?:evaluated|candidates)\b.*$", re.MULTILINE)


def address_of(given: str | None) -> str:
    """Of the job API. Raises: RecipeError if none is given."""
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise RecipeError("--address must be given, got nothing; write --address http://HEAD:8265")
    return address


def entrypoint_of(arguments: Sequence[str], job: str) -> tuple[str, dict[str, str]]:
    """The shell command of a job, and where its run will be: ``run`` and ``runs_dir`` (a shell word)."""
    command, *rest = arguments
    options = [shlex.quote(argument) for argument in rest]
    asked = options_given(arguments)
    run = asked.get("name" if command == "resume" else "run")
    if run is None:
        run = job
        options += ["--run", shlex.quote(run)]
    runs_dir = _RUNS_DIR
    if "runs_dir" in asked:
        runs_dir = shlex.quote(str(asked["runs_dir"]))
    else:
        options += ["--runs-dir", runs_dir]
    if "backend" not in asked:
        options += ["--backend", "ray"]
    if "as_json" not in asked:
        options.append("--json")
    return f"exec python -m layersearch.search {command} {' '.join(options)}", {"run": run, "runs_dir": runs_dir}


def submit(
    address: str,
    arguments: Sequence[str],
    runtime_env: Path | None,
    as_json: bool,
) -> int:
    """Begins a run on the cluster.

    Raises: RecipeError if ``arguments`` are not those of a command that can be submitted; BadInputError if they cannot
        be parsed.
    """
    command = next(iter(arguments), "")
    if command not in _COMMANDS:
        raise RecipeError(
            f"what is submitted must be one of {', '.join(_COMMANDS)} with its options, got '{command:.60}'; write "
            "search submit --address http://HEAD:8265 -- evolve --space evonorm"
        )
    if not callable(parse(arguments)):
        return 0  # they ask for help, and that was printed
    job = f"search-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    entrypoint, place = entrypoint_of(arguments, job)
    api = JobsApi(address)
    api.submit(job, entrypoint, place, _environment({} if runtime_env is None else load_file(runtime_env)))
    if as_json:
        print(json_text({"job": job, **place}))
    else:
        print(f"submitted {job}: its run {place['run']} is in {place['runs_dir']} on the head of the cluster")
        for command in ("status", "logs --follow", "stop", "fetch"):
            name, _, option = command.partition(" ")
            print(" ".join(filter(None, ("  search", name, job, option, f"--address {api.address}"))))
    return 0


def _environment(given: JsonObject) -> JsonObject:
    """The runtime environment of a job. Ray would kill it 3 s after ``stop``; it is to finish its stages and save."""
    variables = given.get("env_vars") or {}
    if not isinstance(variables, dict):
        raise RecipeError(f"env_vars must be a list of 'name: text', got {variables!r:.60}; correct --runtime-env")
    return given | {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_S), **variables}}


def status(address: str, job: str, as_json: bool) -> int:
    """Prints how far a job is."""
    api = JobsApi(address)
    found = _facts(api, job)
    if as_json:
        print(json_text(found))
        return 0
    print(f"{job}: {found['status']}, run {found['run']} in {found['runs_dir']}")
    for line in filter(None, (found["progress"], found["message"] if found["status"] == "FAILED" else None)):
        print(f"  {line}")
    return 0


def _facts(api: JobsApi, job: str) -> JsonObject:
    info = api.info(job)
    place: Any = info.get("metadata") or {}
    lines = _PROGRESS.findall(api.logs(job))
    return {
        "job": job,
        "status": str(info.get("status")).lower() if info.get("status") not in _ENDED else info["status"],
        "message": " ".join(str(info.get("message") or "").split()),
        "run": place.get("run"),
        "runs_dir": place.get("runs_dir"),
        "started": info.get("start_time"),
        "ended": info.get("end_time"),
        "progress": lines[-1] if lines else None,
    }


def logs(address: str, job: str, follow: bool) -> int:
    """Prints what a job has written; with ``follow``, until it has ended."""
    api, shown = JobsApi(address), 0
    while True:
        ended = api.info(job).get("status") in _ENDED
        text = api.logs(job)
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if ended or not follow:
            return 0
        time.sleep(_POLL_S)


def stop(address: str, job: str, as_json: bool) -> int:
    """Ends a job. What its run was told is kept; it can be resumed by another job."""
    api = JobsApi(address)
    place: Any = api.info(job).get("metadata") or {}
    stopped = api.stop(job)
    if as_json:
        print(json_text({"job": job, "stopped": stopped}))
    else:
        print(f"{job}: stopped" if stopped else f"{job}: had ended before")
        resume = f"resume {shlex.quote(str(place.get('run')))}"
        if place.get("runs_dir", _RUNS_DIR) != _RUNS_DIR:
            resume += f" --runs-dir {place['runs_dir']}"
        print(f"  go on by: search submit --address {api.address} -- {resume}")
    return 0


def fetch(address: str, job: str, runs_dir: Path, force: bool, as_json: bool) -> int:
    """Brings the run of a job to this machine: a second job on the same head writes it into its log."""
    api = JobsApi(address)
    place: Any = api.info(job).get("metadata") or {}
    if not place.get("run") or not place.get("runs_dir"):
        raise BadInputError(f"a job must be one of search submit, got '{job:.80}', which was begun by something else")
    if not force and (runs_dir / place["run"]).exists():
        raise BadInputError(
            f"a run must have a new name here, and {runs_dir / place['run']} exists; replace it by --force, or choose "
            "another --runs-dir"
        )
    packing = f"{job}-fetch-{secrets.token_hex(2)}"
    command = f"exec python -m layersearch.search.cluster.pack {place['runs_dir']} {shlex.quote(place['run'])}"
    api.submit(packing, command, {}, {})
    end = time.monotonic() + _PACK_S
    while (info := api.info(packing)).get("status") not in _ENDED:
        if time.monotonic() > end:
            api.stop(packing)
            raise RunError(f"the run must come back within {_PACK_S:g} s, but it did not; fetch it again")
        time.sleep(_POLL_S / 4)
    text = api.logs(packing)
    if info.get("status") != "SUCCEEDED":
        last = next((line for line in reversed(text.splitlines()) if line.strip()), str(info.get("message")))
        raise RunError(
            f"the run must come back, but it did not ({last.removeprefix('search: ')[:300]}); see search logs"
        )
    run_dir = unpack(text, runs_dir, place["run"], force)
    if as_json:
        print(json_text({"job": job, "run": place["run"], "path": str(run_dir)}))
    else:
        print(f"fetched {run_dir}; see search show {place['run']}")
    return 0

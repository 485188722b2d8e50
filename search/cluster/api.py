"""The job API of a Ray cluster, as plain HTTP: needs neither Ray nor anything else here; every call has a time limit.

Ray's own client has no time limits, and needs ``ray[default]`` on the machine of the user. The calls are those that are
documented as Ray Jobs REST API.
"""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from layersearch.errors import BadInputError, RunError
from layersearch.spaces.contracts import JsonObject

__all__ = ["LOOPBACK", "JobsApi"]

_LIMIT_S = 30.0
_MOST_BYTES = 2**31
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the address that was given, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class JobsApi:
    """The jobs of the cluster whose head serves its job API at ``address``, e.g. ``http://HEAD:8265``.

    The token is that of ``RAY_AUTH_TOKEN`` or in the file ``RAY_AUTH_TOKEN_PATH``; with ``RAY_AUTH_MODE=token`` also
    that in ``~/.ray/auth_token``, where Ray puts it.

    Raises: BadInputError with one sentence, by every method, if the cluster is not there, takes another token or has no
        such job; RunError for all else that it refuses.
    """

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        try:
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
        except ValueError:
            good = None
        if not good or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise BadInputError(
                f"the address must be that of a Ray job API, http://HEAD:8265, got '{address:.80}'; correct --address"
            )
        self.address = f"{parts.scheme}://{parts.netloc}"
        direct = [urllib.request.ProxyHandler({})] if parts.hostname in LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirect, *direct)

    def submit(self, job: str, entrypoint: str, metadata: Mapping[str, str], runtime_env: JsonObject) -> None:
        """Begins ``entrypoint``, a shell command, on the head of the cluster."""
        body = {"submission_id": job, "entrypoint": entrypoint, "metadata": metadata, "runtime_env": runtime_env}
        self._call("POST", "/api/jobs/", body)

    def info(self, job: str) -> JsonObject:
        """What is known of a job: ``status``, ``message``, ``metadata``, ``start_time`` and ``end_time`` in ms, …"""
        return self._call("GET", self._path(job))

    def logs(self, job: str) -> str:
        """All that it has written so far, stdout and stderr together."""
        return str(self._call("GET", f"{self._path(job)}/logs").get("logs") or "")

    def stop(self, job: str) -> bool:
        """Whether there was something to stop."""
        return bool(self._call("POST", f"{self._path(job)}/stop").get("stopped"))

    def _path(self, job: str) -> str:
        return f"/api/jobs/{urllib.parse.quote(job, safe='')}"

    def _call(self, method: str, path: str, body: Any = None) -> JsonObject:
        headers = {"Content-Type": "application/json"}
        token = _token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=_LIMIT_S) as response:
                answer = json.loads(response.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            raise self._refusal(error, path) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise BadInputError(
                f"the cluster must be reachable, but nobody answers at {self.address} ({reason}); check --address, and "
                "that ray[default] is installed on the head"
            ) from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise BadInputError(
                f"a Ray job API must be at {self.address}, but what is there is none; the head needs ray[default]"
            )
        return answer

    def _refusal(self, error: urllib.error.HTTPError, path: str) -> Exception:
        with error:
            text = " ".join(error.read(10_000).decode("utf-8", "replace").split())
        if error.code in (401, 403):
            return BadInputError(
                f"the token must be that of the cluster at {self.address}, but it is another or none; set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with the token of the cluster"
            )
        if error.code == 404:
            job = urllib.parse.unquote(path.split("/")[3])
            return BadInputError(
                f"a job must be there, got '{job:.80}', which {self.address} does not know; correct it"
            )
        return RunError(f"the cluster at {self.address} refused ({error.code} {text[:300]}); see its dashboard")


def _token() -> str | None:
    """Where Ray looks for it, in the same order. Raises: BadInputError if it cannot be read."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not named and os.environ.get("RAY_AUTH_MODE") is None:
        return None
    path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"the token must be a readable file, but {path} is not ({error}); correct it") from None

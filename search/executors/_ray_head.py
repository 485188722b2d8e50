"""A Ray cluster of this machine alone, in a process of its own that ends with the process that asked for it.

Its own session keeps the signals of a terminal and of job schedulers away from Ray: what they mean is the runner's
decision. When the runner is gone, however it went, its end of the pipe closes, and Ray is shut down in good order.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from layersearch.errors import RunError

__all__ = ["LOOPBACK_ONLY", "LocalHead"]

LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Read by Ray when it is imported: without it every listener of a cluster of one machine is open to the network."""

_START_S = 120.0
_END_S = 10.0


class LocalHead:
    """Starts Ray with ``cpus`` (as a count only) and an object store of ``memory_bytes``; ``address`` is where.

    Raises: RunError if it does not start.
    """

    def __init__(self, cpus: int, memory_bytes: int) -> None:
        settings = {"num_cpus": cpus, "object_store_memory": memory_bytes}
        quiet = {"RAY_USAGE_STATS_ENABLED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **LOOPBACK_ONLY, **quiet, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        late = threading.Timer(_START_S, self._process.kill)
        late.start()
        try:
            assert self._process.stdout is not None, "it was asked for"
            answer = self._process.stdout.readline()
        finally:
            late.cancel()
        if not answer:
            _, errors = self._process.communicate()
            why = next(reversed(errors.split("\n")[:-1]), f"it took longer than {_START_S:g} s")
            raise RunError(f"a local Ray must start, but it did not ({why.strip()}); use --backend pool")
        self.address: str = json.loads(answer)

    def close(self, now: bool = False) -> None:
        """Ends Ray and everything it started; ``now``, where it would not end in good order. May be called twice."""
        try:
            self._process.communicate(timeout=0.0 if now else 2 * _END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
        except ValueError:  # closed before
            return


def _main(settings: dict[str, Any]) -> None:
    import logging

    logging.getLogger("ray").addHandler(logging.NullHandler())
    ray: Any = importlib.import_module("ray")
    context = ray.init(
        address="local", include_dashboard=False, log_to_driver=False, configure_logging=False, **settings
    )
    print(json.dumps(context.address_info["gcs_address"]), flush=True)
    try:
        sys.stdin.read()
    finally:
        late = threading.Timer(_END_S, _end_all)  # without its GCS, Ray does not come to an end
        late.daemon = True
        late.start()
        ray.shutdown()
        _end_all()


def _end_all() -> None:
    """Ends what Ray has left of this session's processes, and this one."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))

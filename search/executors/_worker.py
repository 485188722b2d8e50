"""What a worker process of the pool does: builds its evaluator once, then runs one job after the other."""

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import forkserver, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from layersearch.errors import LayerSearchError, RunError
from layersearch.search.executors._shared_arrays import SharedArrays
from layersearch.search.executors.base import SpaceSpec, allowed_seconds, run_timed, settle_torch
from layersearch.spaces.contracts import SavingEvaluator

__all__ = ["worker_main"]

_PR_SET_PDEATHSIG = 1


def worker_main(connection: Connection, spec: SpaceSpec, data: SharedArrays, device: str) -> None:
    """Sends ``("ready", time limits)`` or ``("broken", error)``, then ``("done", outcome, again)`` for each job, and
    before that, in long ones, ``("saved", checkpoint)`` now and then.

    Returns when the runner closes its end.
    """
    # Ctrl-C goes to the whole process group; what it means is the runner's decision.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    _die_with_runner()
    try:
        settle_torch()
        evaluator = spec.build().evaluator(data.arrays(), device)
        settle_torch()
        limits = dict(evaluator.time_limits())
        if isinstance(evaluator, SavingEvaluator):
            evaluator.save = lambda checkpoint: connection.send(("saved", checkpoint))
    except LayerSearchError as error:
        connection.send(("broken", error))
        return
    except Exception as error:
        connection.send(("broken", RunError(f"no worker could be started ({type(error).__name__}: {error})")))
        return
    try:
        connection.send(("ready", limits))
        while True:
            job = connection.recv()
            outcome, again = run_timed(evaluator, job, allowed_seconds(limits, job))
            connection.send(("done", outcome, again))
    except (EOFError, ConnectionError):
        return


def _die_with_runner() -> None:
    """Ends this process when the runner is gone, even from the middle of a stage.

    A thread waits for the runner's end. Where a stage never lets other threads run, the kernel's parent-death signal
    does it: the parent is the fork server, which lives as long as anyone holds its alive pipe, so this end is closed.
    """
    runner = parent_process()
    assert runner is not None, "a worker is a child of the runner"

    def watch() -> None:
        wait([runner.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="watch-runner", daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    server: Any = forkserver._forkserver  # type: ignore[attr-defined, unused-ignore]
    alive, server._forkserver_alive_fd = server._forkserver_alive_fd, None
    if alive is not None:
        os.close(alive)

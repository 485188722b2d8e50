"""Nodes of ``ray.cluster_utils.Cluster``, which are processes of this machine."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

__all__ = ["kill_node", "parent", "raylet_of", "stop_node"]


def raylet_of(node: Any) -> int:
    """Process that is the node: the parent of its workers."""
    pid = node.all_processes["raylet"][0].process.pid
    assert isinstance(pid, int)
    return pid


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def kill_node(node: Any) -> None:
    """As when its power is cut: workers end with it at once, and not when they notice, after another result."""
    _signal(node, signal.SIGKILL)


def stop_node(node: Any) -> None:
    """As when it hangs: nothing of it answers, and no connection is closed. ``kill_node`` must follow."""
    _signal(node, signal.SIGSTOP)


def _signal(node: Any, number: signal.Signals) -> None:
    raylet = raylet_of(node)
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    workers = [pid for pid in pids if parent(pid) == raylet]
    for pid in (raylet, *workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

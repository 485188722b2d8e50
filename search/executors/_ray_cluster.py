"""Connects this process to a Ray cluster, or to one of its own on this machine; says in one sentence why it cannot.

Ray itself tries an address for minutes and writes what it thinks of it to the terminal, so a short-lived process tries
it first, within a time limit.
"""

import atexit
import importlib
import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from layersearch.errors import BadInputError, RunError
from layersearch.search.cluster.api import LOOPBACK
from layersearch.search.executors._ray_head import LOOPBACK_ONLY, LocalHead
from layersearch.search.executors.base import AS_MANY_AS_FIT

__all__ = ["Cluster", "abandoned"]

_REACH_S = 5.0
_JOIN_S = 45.0
_ROOM_BYTES = 256 * 2**20
_MISMATCH = re.compile(r"[Vv]ersion mismatch")
_AUTH = "AUTH_MODE"
_ABANDONED: list["Cluster"] = []


class Cluster:
    """A connection. If this process had one already, that one is used and left as it is.

    Args:
        address: ``HOST:PORT`` of a running cluster, or ``auto`` for the one of this machine; ``None`` for
            ``RAY_ADDRESS``, or else for one that is started here, open to nobody else, and ended by ``close``.
        workers, cpus: how many workers such a one needs room for, and what each takes.
        data_bytes: that its object store has to hold.
    Raises: BadInputError if the cluster cannot be joined, or a worker needs more CPUs than this machine has; RunError
        if none can be started here.

    Once ``lost`` is set, nothing is asked of its head any more.
    """

    def __init__(self, address: str | None, workers: int, cpus: float, data_bytes: int) -> None:
        if importlib.util.find_spec("ray") is None:
            raise BadInputError(
                "ray must be installed for the backend ray, but it is not; pip install ray, or use --backend pool"
            )
        address = address or os.environ.get("RAY_ADDRESS") or None
        self.head: LocalHead | None = None
        self.lost = False
        self._joined = False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        logging.getLogger("ray").addHandler(logging.NullHandler())
        if _is_joined():
            return
        if address is not None:
            loopback = _reachable(address)
            _try(address, loopback)
        else:
            self.head = LocalHead(_local_cpus(workers, cpus), data_bytes + _ROOM_BYTES)
            address, loopback = self.head.address, True
        try:
            self._join(address, loopback, own=self.head is not None)
        except BaseException:
            self.close()
            raise

    def _join(self, address: str, loopback: bool, own: bool) -> None:
        if own:
            _use_token()
        ray: Any = importlib.import_module("ray")
        with _signals_kept(), _loopback_only(loopback):
            try:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except Exception as error:
                raise RunError(f"{_sentence(address, str(error.__cause__ or error))}") from error
        self._joined = True
        # What Ray has to say of dying workers goes to stdout, where --json promises one object.
        ray._private.worker._worker_logs_enabled = False
        if own and ray.util.get_node_ip_address() not in LOOPBACK:
            raise RunError("a local Ray must listen on 127.0.0.1 only, but it does not; use --backend pool")

    def nodes(self) -> list[dict[str, float]]:
        """Resources of each node that is alive, as Ray counts them."""
        ray: Any = importlib.import_module("ray")
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def largest(self) -> dict[str, float]:
        """What an autoscaler may add up to, over all nodes; empty if there is none, or it cannot be known from here."""
        ray: Any = importlib.import_module("ray")
        find = getattr(ray._private.state.state, "get_max_resources_from_cluster_config", None)
        reported = dict((find() if find is not None else None) or {})
        return reported or _launched_with(Path.home() / "ray_bootstrap_config.yaml")

    def close(self) -> None:
        """May be called twice."""
        if self._joined:
            ray: Any = importlib.import_module("ray")
            self._joined = False
            if self.lost:
                atexit.unregister(ray.shutdown)
                _ABANDONED.append(self)
            else:
                with _signals_kept():
                    ray.shutdown()
        if self.head is not None:
            self.head.close(now=self.lost)


def abandoned() -> bool:
    """Whether this process left a cluster whose head was lost without telling Ray, which would wait for the head."""
    return bool(_ABANDONED)


def _local_cpus(workers: int, cpus: float) -> int:
    """CPUs that a cluster of this machine alone says it has: room for all workers of up to one CPU, as for processes.

    Raises: BadInputError if there are fewer than a worker needs.
    """
    here = os.cpu_count() or 1
    if cpus > here:
        raise BadInputError(
            f"a worker must fit on this machine, got {cpus:g} CPUs per worker where {here} are; "
            "ask for less --cpus-per-worker"
        )
    return here if cpus > 1 else max(here, round(workers * cpus + 0.5))


def _launched_with(file: Path) -> dict[str, float]:
    """Resources of all nodes that the cluster file of this head allows; ``ray up`` leaves it there."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        types = config["available_node_types"].values()
        most = config.get("max_workers", AS_MANY_AS_FIT)
        total: dict[str, float] = {}
        for node in types:
            for name, amount in (node.get("resources") or {}).items():
                if isinstance(amount, int | float):
                    total[name] = total.get(name, 0.0) + min(most, node.get("max_workers", 0)) * amount
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return {}
    return {name: amount for name, amount in total.items() if amount > 0}


def _is_joined() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _reachable(address: str) -> bool:
    """Whether the cluster at ``address`` is to be reached on the loopback device alone."""
    if "://" in address:
        raise BadInputError(
            f"the address must be HOST:PORT of a Ray cluster (6379 by default) or auto, got '{address:.80}'; "
            "from outside of the cluster use search submit --address http://HEAD:8265"
        )
    if address == "auto":
        return False
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadInputError(f"the address must be HOST:PORT of a Ray cluster or auto, got '{address:.80}'; correct it")
    host = host.strip("[]")
    if host not in LOOPBACK:
        _knock(address, host, int(port))
        return False
    try:
        _knock(address, _own_address(), int(port))
    except BadInputError:
        _knock(address, host, int(port))
        return True
    return False


def _own_address() -> str:
    """The address by which other machines know this one; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _knock(address: str, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), _REACH_S).close()
    except OSError as error:
        raise BadInputError(
            f"the cluster must be reachable, but nobody answers at {address} ({error.strerror or error}); "
            "check --address, or leave it out to run on this machine"
        ) from None


def _try(address: str, loopback: bool) -> None:
    """Joins and leaves the cluster in a process of its own. Raises: BadInputError."""
    code = (
        "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False); ray.shutdown();"
        "print('joined', file=sys.stderr)"
    )
    environment = {**os.environ, **(LOOPBACK_ONLY if loopback else {})}
    process = subprocess.Popen(
        [sys.executable, "-c", code, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        env=environment,
    )
    late = threading.Timer(_JOIN_S, process.kill)
    late.start()
    said: list[str] = []
    try:
        assert process.stderr is not None, "it was asked for"
        for line in process.stderr:
            said.append(line)
            if "InvalidAuthToken" in line or line.strip() == "joined":
                break
    finally:
        late.cancel()
        process.kill()
        process.communicate()
    if not said or said[-1].strip() != "joined":
        raise BadInputError(_sentence(address, "".join(said)))


def _sentence(address: str, said: str) -> str:
    """What is wrong with a cluster, from what Ray says of it."""
    if "InvalidAuthToken" in said or "AuthenticationError" in said or "Unauthenticated" in said:
        return (
            f"the token must be that of the cluster at {address}, but it is another or none; set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN_PATH to a file with the token of the cluster"
        )
    if _MISMATCH.search(said):
        versions = re.findall(r"(Ray|Python): (\S+)", said)
        theirs, ours = versions[:2], versions[2:4]
        return (
            f"versions must be those of the cluster at {address}, which has {_versions(theirs)}, but here is "
            f"{_versions(ours)}; install the same"
        )
    if "TimedOut" in said or "Timed out" in said or "Failed to connect to GCS" in said or not said.strip():
        return (
            f"a Ray cluster must answer at {address} within {_JOIN_S:g} s, but what is there does not; "
            "check --address (the port of the head is 6379 by default)"
        )
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    return f"the cluster at {address} must be joined, but it is not ({last[:300]}); start the run on one of its nodes"


def _versions(found: list[tuple[str, str]]) -> str:
    return " and ".join(f"{name} {number}" for name, number in found) or "others"


def _use_token() -> None:
    """The cluster that is started here asks for a token, as Ray has it by default; this process has to show it."""
    if os.environ.get(f"RAY_{_AUTH}") is not None:
        return
    os.environ[f"RAY_{_AUTH}"] = "token"
    if "ray" in sys.modules:
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")


@contextmanager
def _loopback_only(wanted: bool) -> Iterator[None]:
    """For a process that may have imported Ray long ago; children get it by ``LOOPBACK_ONLY``."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = before and not wanted
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place of the runner's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

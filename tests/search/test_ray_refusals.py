"""What a cluster cannot do is said in one sentence, within a time limit, with exit code 2; no folder is left."""

import importlib.util
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_catalog import toy_cli

from layersearch.errors import BadInputError, RunError
from layersearch.search.executors import _ray_cluster as cluster_module
from layersearch.search.executors import _ray_fleet as fleet_module
from layersearch.search.executors._ray_actor import RayWorker, Ready
from layersearch.search.executors._ray_aside import Aside
from layersearch.search.executors._ray_cluster import Cluster, _launched_with, _sentence, _try
from layersearch.search.executors._ray_fleet import Fleet
from layersearch.search.executors._ray_workers import Worker


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of something that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refusal(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert toy_cli("evolve", "--space", "toy", "--run", "mine", *options) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert not list(Path("runs").glob("*")), "as if it had never been asked for"
    return err


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "nobody answers at 127.0.0.1:1 (Connection refused); check --address"),
        ("http://127.0.0.1:8265", "must be HOST:PORT of a Ray cluster (6379 by default) or auto, got 'http://127"),
        ("ray://127.0.0.1:10001", "search submit"),
        ("somewhere", "must be HOST:PORT of a Ray cluster or auto, got 'somewhere'"),
        ("host:99999", "got 'host:99999'"),
        (":6379", "got ':6379'"),
    ],
)
def test_an_address_where_nothing_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setattr(cluster_module, "_is_joined", lambda: False)
    begun = time.monotonic()
    assert says in refusal(capsys, "--address", address)
    assert time.monotonic() - begun < 10


def test_something_else_at_the_address(monkeypatch: pytest.MonkeyPatch, mute: str) -> None:
    monkeypatch.setattr(cluster_module, "_JOIN_S", 5.0)
    monkeypatch.setattr(cluster_module, "_is_joined", lambda: False)
    with pytest.raises(BadInputError, match=f"a Ray cluster must answer at {mute} within 5 s"):
        Cluster(mute, 1, 1.0, 0)


@pytest.mark.ray
def test_a_wrong_token(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another" * 8)
    begun = time.monotonic()
    with pytest.raises(BadInputError, match=r"the token must be that of the cluster at .*; set RAY_AUTH_MODE=token"):
        _try(ray_cluster.address, loopback=True)
    assert time.monotonic() - begun < 30


@pytest.mark.ray
def test_another_version(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The probe says another version of Ray than the cluster has."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "sitecustomize.py").write_text(
        "import ray._private.utils as u\nu.compute_version_info = lambda: ('1.2.3', '3.11.7')\n"
    )
    with pytest.raises(BadInputError, match=r"which has Ray \d+.* and Python 3.*, but here is Ray 1\.2\.3 and Python"):
        _try(ray_cluster.address, loopback=True)


def test_other_words_of_ray_are_passed_on() -> None:
    said = _sentence("h:1", "Traceback\n  ...\nRuntimeError: no node of the cluster is on this machine\n\n")
    assert said.endswith("(RuntimeError: no node of the cluster is on this machine); start the run on one of its nodes")
    assert "\n" not in said


def test_ray_that_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))
    assert "ray must be installed for the backend ray" in refusal(capsys, "--backend", "ray")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_more_gpus_than_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--gpus-per-worker", "0.5", "--workers", "4")
    assert "GPUs must be in the cluster, got a need for 2 where 0 are; ask for fewer" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--backend", "pool", "--address", "h:1"), "address must be given with the backend ray, got the backend pool"),
        (("--gpus-per-worker", "1.5"), "gpus_per_worker must be in [0, 1] or a whole number above, got 1.5"),
        (("--gpus-per-worker", "-1"), "'gpus_per_worker' must be greater than or equal to 0"),
        (("--gpus-per-worker", "many"), "'gpus_per_worker' must be a valid number, got 'many'"),
        (("--cpus-per-worker", "0"), "'cpus_per_worker' must be greater than 0"),
        (("--backend", "ray", "--device", "cuda:1"), "device must be auto or cpu or cuda with this backend"),
        (("--gpus-per-worker", "0.5", "--device", "cpu"), "device must be auto or cuda with this backend"),
    ],
)
def test_options_that_do_not_fit(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str) -> None:
    assert says in refusal(capsys, *options)


def test_nodes_that_an_autoscaler_may_add_count(folder: Path) -> None:
    assert _launched_with(folder / "nothing.yaml") == {}
    recipes = Path(__file__).parents[2] / "runs" / "recipes"
    assert _launched_with(recipes / "ray-cluster-gpu.yaml") == {"CPU": 64.0, "GPU": 8.0}
    for odd in ("a: [", "3", "available_node_types: 3", "available_node_types: {a: 3}", "{}"):
        (folder / "odd.yaml").write_text(odd)
        assert _launched_with(folder / "odd.yaml") == {}


def test_a_worker_keeps_to_its_share_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ, CUDA_VISIBLE_DEVICES="0,1"))
    worker = RayWorker(0.25)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    worker._take_memory(alone=False)
    assert worker.run_alone([]) == []
    assert shares == [0.9 * 0.25, 0.9, 0.9 * 0.25]
    RayWorker(0.0)._take_memory(alone=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "", "a worker without a GPU sees none"
    assert os.environ["OMP_NUM_THREADS"] == "1"
    RayWorker(1.0)._take_memory(alone=False)
    assert len(shares) == 3, "a whole GPU is not cut"


def test_a_node_with_another_layersearch() -> None:
    fleet = object.__new__(Fleet)
    with pytest.raises(BadInputError, match=r"one version everywhere, got 9\.9 on a node of the cluster and"):
        fleet.is_ready(Worker(None, 0.0), Ready({}, "node", "9.9"))


def test_a_head_that_is_silent_ends_the_run_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the loop waits for it, and nothing is asked of it at the end."""
    monkeypatch.setattr(fleet_module, "_HEAD_S", 0.2)
    never, fleet = threading.Event(), object.__new__(Fleet)

    class Silent:
        lost = False

        def nodes(self) -> list[dict[str, float]]:
            never.wait()
            return []

        def close(self) -> None:
            assert self.lost

    now = time.monotonic()
    vars(fleet).update(_cluster=Silent(), _aside=Aside(), _look=None, _heard_at=now, _ready_at=now, _data=1)
    vars(fleet).update(_nodes=[], _largest={}, _most=1, _cpus=1.0, _gpus=0.0, workers={0: Worker(None, now)})
    monkeypatch.setattr(fleet, "end", lambda _: fleet.workers.clear())

    def fit_until(end: float) -> None:
        while time.monotonic() < end:
            fleet.fit()
            time.sleep(0.02)

    with pytest.raises(RunError, match=r"it has not for 0\.2 s; resume the run when it is back"):
        fit_until(now + 5)
    fleet.close()
    assert time.monotonic() - now < 3
    never.set()


def test_a_worker_must_fit_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cluster is one of this machine alone; refused before any is started."""
    monkeypatch.setattr(cluster_module.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(cluster_module, "_is_joined", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(BadInputError, match="got 64 CPUs per worker where 2 are; ask for less --cpus-per-worker"):
        Cluster(None, 1, 64.0, 0)
    needs = [(1, 1.0), (8, 1.0), (3, 0.5), (4, 2.0)]
    assert [cluster_module._local_cpus(*need) for need in needs] == [2, 8, 2, 2]

"""How a CUDA graph is captured beside other threads, on a stand-in for torch.cuda: order of calls, locks, failures."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from layersearch.spaces.tasks.images import cuda_graph
from layersearch.spaces.tasks.images.cuda_graph import CudaGraph, beside_default

DEVICE = torch.device("cuda:0")


class Stream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def synchronize(self) -> None:
        self.log.append(f"{self.name} is done")

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} after {other.name}")


class FakeCuda:
    """Notes what is asked of it."""

    def __init__(self, reserved: int = 0) -> None:
        self.log: list[str] = []
        self.default = Stream(self.log, "default")
        self.local = threading.local()
        self.reserved = reserved
        self.n_streams = 0
        cuda = self

        class Graph:
            def capture_begin(self, capture_error_mode: str) -> None:
                cuda.log.append(f"begin {capture_error_mode}")

            def capture_end(self) -> None:
                cuda.log.append("end")

            def replay(self) -> None:
                assert cuda_graph._launching.locked()
                cuda.log.append("replay")

            def reset(self) -> None:
                cuda.log.append("reset")

        self.CUDAGraph = Graph

    def default_stream(self, device: torch.device) -> Stream:
        return self.default

    def current_stream(self, device: torch.device) -> Stream:
        return getattr(self.local, "stream", self.default)

    def Stream(self, device: torch.device) -> Stream:  # noqa: N802
        self.n_streams += 1
        return Stream(self.log, f"side {self.n_streams}")

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.local.stream = self.current_stream(DEVICE), stream
        yield
        self.local.stream = before

    def memory_reserved(self, device: torch.device) -> int:
        return self.reserved

    def memory_allocated(self, device: torch.device) -> int:
        return 0

    def get_device_properties(self, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(total_memory=100)

    def empty_cache(self) -> None:
        assert cuda_graph._launching.locked(), "not while another thread captures"
        self.log.append("give back")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(cuda_graph, "_failed", threading.Event())
    monkeypatch.setattr(cuda_graph, "_own", threading.local())
    return fake


def test_a_graph_from_capture_to_close(cuda: FakeCuda) -> None:
    def say(what: str) -> Callable[[], None]:
        return lambda: cuda.log.append(what)

    graph = CudaGraph(DEVICE)
    with beside_default(DEVICE):
        graph.capture(say("step"), say("warm up"))
        graph.replay(2)
        graph.close()
        graph.close()
    expected = "side 1 after default, warm up, side 1 is done, begin thread_local, step, end, replay, replay, "
    expected += "side 1 is done, reset, default after side 1"
    assert ", ".join(cuda.log) == expected


def test_memory_is_given_back_when_much_is_unused(cuda: FakeCuda) -> None:
    for reserved, failed, given in ((20, False, False), (30, False, True), (30, True, False)):
        cuda.log.clear()
        cuda.reserved = reserved
        if failed:
            cuda_graph._failed.set()
        graph = CudaGraph(DEVICE)
        graph.capture(lambda: None, lambda: None)
        graph.close()
        assert ("give back" in cuda.log) == given


def test_a_capture_that_fails_is_ended_and_releases_its_locks(cuda: FakeCuda) -> None:
    def fail() -> None:
        raise RuntimeError("cannot be captured")

    graph = CudaGraph(DEVICE)
    for run, warm_up in ((fail, lambda: None), (lambda: None, fail)):
        with pytest.raises(RuntimeError, match="cannot be captured"):
            graph.capture(run, warm_up)
        assert not cuda_graph._launching.locked()
        assert not cuda_graph._capturing.locked()
        graph.close()
    assert cuda.log == ["default is done", "begin thread_local", "end"]
    assert cuda_graph._failed.is_set()


def test_a_thread_keeps_to_its_own_stream(cuda: FakeCuda) -> None:
    names: list[str] = []

    def work() -> None:
        for _ in range(2):
            with beside_default(DEVICE):
                names.append(cuda.current_stream(DEVICE).name)

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert names == ["side 1", "side 1", "side 2", "side 2"]
    with cuda.stream(cuda.Stream(DEVICE)), beside_default(DEVICE):
        assert cuda.current_stream(DEVICE).name == "side 3", "one that is not the default one will do"
    with beside_default(torch.device("cpu")):
        assert cuda.current_stream(DEVICE) is cuda.default

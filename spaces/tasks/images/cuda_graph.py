"""A CUDA graph that can be captured while other threads of this process train on the same GPU.

torch lets one thread capture while others launch only with some care: the random state of the device is shared (so no
other graph may be launched meanwhile), and nobody may wait for the whole device (so ``torch.cuda.graph``, which does,
is not used).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

__all__ = ["CudaGraph", "StepGraph", "beside_default"]

_capturing = threading.Lock()
"""Held while one thread warms up and captures. Kernels that are tuned then wait for the whole device."""
_launching = threading.Lock()
"""Held while kernels are captured, while graphs are launched, and while memory is given back."""

_SPARE = 0.25
"""Memory is given back once this part of the device's lies unused in torch's hands: it costs a wait for the device."""

_failed = threading.Event()
"""Set when a capture has failed: torch may then think that it goes on, and refuses to give memory back."""

_own = threading.local()


class StepGraph(Protocol):
    """Something that runs again what was captured."""

    def capture(self, run: Callable[[], None], warm_up: Callable[[], None]) -> None:
        """Calls ``warm_up``, then records ``run`` without running it. Raises: RuntimeError if it cannot."""
        ...

    def replay(self, times: int) -> None:
        """Launches what was captured so many times, and does not wait for it."""
        ...

    def close(self) -> None:
        """Gives up what was captured, and its memory. May be called twice."""
        ...


class CudaGraph:
    """``StepGraph`` on a GPU. Capture, replay and whatever works with it belong inside ``beside_default(device)``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph: torch.cuda.CUDAGraph | None = None

    def capture(self, run: Callable[[], None], warm_up: Callable[[], None]) -> None:
        with _capturing:
            warm_up()
            torch.cuda.current_stream(self._device).synchronize()
            graph = torch.cuda.CUDAGraph()
            with _launching:
                _record(graph, run)
            self._graph = graph

    def replay(self, times: int) -> None:
        assert self._graph is not None, "a graph is captured before it is replayed"
        with _launching:
            for _ in range(times):
                self._graph.replay()

    def close(self) -> None:
        if self._graph is None:
            return
        torch.cuda.current_stream(self._device).synchronize()
        graph, self._graph = self._graph, None
        with _launching:
            graph.reset()
            unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            if not _failed.is_set() and unused > _SPARE * torch.cuda.get_device_properties(self._device).total_memory:
                torch.cuda.empty_cache()


def _record(graph: torch.cuda.CUDAGraph, run: Callable[[], None]) -> None:
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        try:
            run()
        finally:
            graph.capture_end()
    except BaseException:
        _failed.set()
        raise


@contextmanager
def beside_default(device: torch.device) -> Iterator[None]:
    """Work of this thread on a stream that can be captured: its own if it has one, not the default one.

    Does nothing on other devices than a GPU.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.current_stream(device)
    stream = before if before != torch.cuda.default_stream(device) else _side_stream(device)
    stream.wait_stream(before)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        before.wait_stream(stream)


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for each thread and device: torch has 32 of them, and hands the first out again after the last."""
    streams: dict[torch.device, torch.cuda.Stream] = _own.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return streams[device]

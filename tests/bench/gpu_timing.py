"""Times what a device does: by CUDA events on a GPU, by the clock on a CPU (which only tries the script out)."""

import gc
import itertools
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["Bench", "Row", "captured", "first_line"]

Row = dict[str, object]
Run = Callable[[], object]

FLUSH_BYTES = 512 * 2**20
"""Written before each measurement: more than any cache holds, and long enough to hide the launch of what follows."""


@dataclass
class Bench:
    """What the sections share.

    Args:
        device: where to measure.
        quick: fewer graphs and rounds.
        tiny: shapes for a machine without a GPU; its figures mean nothing.
        ends: on the clock of ``time.monotonic``: when the present section has to be through.
        facts: figures that later sections need: ``copy_bytes_per_s``.
    """

    device: torch.device
    quick: bool
    tiny: bool
    ends: float = float("inf")
    facts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def rounds(self) -> int:
        return 2 if self.tiny else 7 if self.quick else 21

    def late(self) -> bool:
        return time.monotonic() >= self.ends

    def note(self, text: str) -> None:
        """Something to say under the table of the present section; said once."""
        if text not in self.notes:
            self.notes.append(text)

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Gives back the memory of what was measured before."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def medians(self, runs: Mapping[str, Run]) -> dict[str, float]:
        """Median seconds of each, in turn, with cold caches; the first round is not counted."""
        times: dict[str, list[float]] = {name: [] for name in runs}
        flush = torch.empty(FLUSH_BYTES if self.on_gpu else 1, dtype=torch.uint8, device=self.device)
        for k, (name, run) in itertools.product(range(self.rounds + 1), runs.items()):
            flush.zero_()
            seconds = self._seconds(run)
            if k:
                times[name].append(seconds)
        return {name: statistics.median(values) for name, values in times.items()}

    def _seconds(self, run: Run) -> float:
        if not self.on_gpu:
            begun = time.perf_counter()
            run()
            return time.perf_counter() - begun
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def environment(self) -> dict[str, str]:
        packages = ("torch", "triton", "numpy", "timm", "layersearch")
        found = {name: _version(name) for name in packages}
        found["device"] = torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"
        if self.on_gpu:
            found["cuda"] = str(torch.version.cuda)
            found["driver"] = _driver()
            found["cudnn"] = str(torch.backends.cudnn.version())
        return found


@contextmanager
def captured(bench: Bench, run: Run) -> Iterator[tuple[Run, bool]]:
    """``run`` as a CUDA graph, so that its launches cost nothing; or as it is, and False, where that is not possible.

    To be used on a stream that is not the default one, on which everything that ``run`` differentiates was computed,
    too. What it returns is kept in the graph's memory and written again each time.
    """
    for _ in range(3):
        run()
    bench.synchronize()
    if not bench.on_gpu:
        yield run, False
        return
    graph, is_graph = torch.cuda.CUDAGraph(), True
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(bench.device)):
            kept = run()
    except RuntimeError as error:
        is_graph = False
        bench.note(f"some are launched, not replayed: {first_line(error)}")
    yield (graph.replay if is_graph else run), is_graph
    if is_graph:
        del kept
        graph.reset()


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"unknown ({type(error).__name__})"

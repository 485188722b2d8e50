"""Forward and backward pass of layers by each lowering, against nn.BatchNorm2d + nn.ReLU; and what a build costs.

python tests/bench/bench_layer.py [ROUNDS]
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import environment, interleaved, show, table
from torch import nn

from layersearch.kernels.codegen import _compile
from layersearch.kernels.codegen.c import EMITTER, c_source
from layersearch.primitives.lowering import available, build_layer
from layersearch.primitives.lowering.program import lower
from layersearch.spaces.evonorm.published import PUBLISHED

__all__: list[str] = []

NATIVE = "nn.BatchNorm2d + nn.ReLU"
LAYERS = ("bn-relu", "evonorm-b0", "evonorm-s0")
LOWERINGS = tuple(name for name in ("torch", "c") if available()[name] is None)
SHAPES = ((8, 16, 8, 8), (32, 16, 16, 16), (64, 16, 32, 32), (64, 32, 24, 24), (64, 64, 32, 32), (128, 128, 8, 8))
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
ELEMENTS_PER_CALL = 4_000_000
"""Small tensors are passed several times per measurement, so that one takes long enough for the clock."""
MOST_REPEATS = 100


def passes(layer: nn.Module, shape: tuple[int, ...], layout: torch.memory_format) -> Callable[[], None]:
    """A few training passes of ``layer``, gradients of input and parameters included."""
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(shape, generator=generator).contiguous(memory_format=layout) for _ in range(2))
    x.requires_grad_()

    def run() -> None:
        for _ in range(repeats(shape)):
            x.grad = None
            layer.zero_grad(set_to_none=True)
            layer(x).backward(upstream)

    return run


def repeats(shape: tuple[int, ...]) -> int:
    return min(MOST_REPEATS, max(1, ELEMENTS_PER_CALL // (shape[0] * shape[1] * shape[2] * shape[3])))


def build_times() -> dict[str, object]:
    """Seconds of all processes for one graph: programs and source, then the compiler; both layouts, both directions."""
    compiler = _compile.find_compiler()
    if isinstance(compiler, str):
        return {"no builds": compiler}
    rows: dict[str, object] = {}
    for name in LAYERS:
        start = time.process_time()
        program = lower(PUBLISHED[name])
        source = c_source({"forward": program.forward, "backward": program.backward})
        rows[f"{name}, programs and source, s"] = time.process_time() - start
        spent: list[float] = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with tempfile.TemporaryDirectory() as folder:
                _compile.build(source, EMITTER, compiler, Path(folder))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        rows[f"{name}, {compiler.command[0]}, s, least of 5"] = min(spent)
    return rows


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    print(environment())
    against: dict[str, list[float]] = {}
    faster: dict[str, list[float]] = {}
    for shape in SHAPES:
        runs = {}
        channels = shape[1]
        for layout, memory_format in LAYOUTS.items():
            native = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
            runs[f"{NATIVE}|{layout}"] = passes(native, shape, memory_format)
            for name in LAYERS:
                for lowering in LOWERINGS:
                    layer = build_layer(PUBLISHED[name], channels, lowering=lowering)
                    runs[f"{name}, {lowering}|{layout}"] = passes(layer, shape, memory_format)
        for run in runs.values():
            run()
        times = interleaved(runs, rounds)
        rows: dict[str, dict[str, object]] = {}
        for name in (NATIVE, *(f"{name}, {lowering}" for name in LAYERS for lowering in LOWERINGS)):
            rows[name] = {}
            for layout in LAYOUTS:
                ratio = times[f"{name}|{layout}"] / times[f"{NATIVE}|{layout}"]
                rows[name] |= {f"{layout} ms": 1e3 * times[f"{name}|{layout}"] / repeats(shape), f"× {layout}": ratio}
                if name != NATIVE:
                    against.setdefault(f"{name}, {layout}", []).append(ratio)
        for name in LAYERS if "c" in LOWERINGS else ():
            for layout in LAYOUTS:
                ratio = times[f"{name}, torch|{layout}"] / times[f"{name}, c|{layout}"]
                faster.setdefault(f"{name}, {layout}", []).append(ratio)
        table(f"{'x'.join(map(str, shape))}, median of {rounds} rounds, × = against {NATIVE} in that layout", rows)
    show(
        "geometric mean over the shapes, core-seconds against the native pair in the same layout",
        {name: statistics.geometric_mean(r) for name, r in against.items()},
    )
    show(
        "torch lowering / c lowering: geometric mean over the shapes (least, most)",
        {n: f"{statistics.geometric_mean(r):.2f} ({min(r):.2f}, {max(r):.2f})" for n, r in faster.items()},
    )
    show("build of one graph for all shapes, core-seconds", build_times())


if __name__ == "__main__":
    main()

"""Forward and backward pass of layers through the torch lowering, against nn.BatchNorm2d + nn.ReLU.

python tests/bench/bench_layer.py [ROUNDS]
"""

import statistics
import sys
from collections.abc import Callable

import torch
from common import environment, interleaved, show, table
from torch import nn

from layersearch.primitives.lowering import build_layer
from layersearch.spaces.evonorm.published import PUBLISHED

__all__: list[str] = []

NATIVE = "nn.BatchNorm2d + nn.ReLU"
LAYERS = ("bn-relu", "evonorm-b0", "evonorm-s0")
SHAPES = ((32, 16, 16, 16), (64, 32, 24, 24), (64, 64, 32, 32), (128, 128, 8, 8))
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
ELEMENTS_PER_CALL = 4_000_000
"""Small tensors are passed several times per measurement, so that one takes long enough for the clock."""


def passes(layer: nn.Module, shape: tuple[int, ...], layout: torch.memory_format) -> Callable[[], None]:
    """A few training passes of ``layer``, gradients of input and parameters included."""
    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(shape, generator=generator).contiguous(memory_format=layout) for _ in range(2))
    x.requires_grad_()
    repeats = max(1, ELEMENTS_PER_CALL // x.numel())

    def run() -> None:
        for _ in range(repeats):
            x.grad = None
            layer.zero_grad(set_to_none=True)
            layer(x).backward(upstream)

    return run


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    print(environment())
    ratios: dict[tuple[str, str], list[float]] = {}
    for shape in SHAPES:
        runs = {}
        for layout, memory_format in LAYOUTS.items():
            channels = shape[1]
            runs[f"{NATIVE}|{layout}"] = passes(
                nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()), shape, memory_format
            )
            for name in LAYERS:
                runs[f"{name}|{layout}"] = passes(build_layer(PUBLISHED[name], channels), shape, memory_format)
        for run in runs.values():
            run()
        times = interleaved(runs, rounds)
        repeats = max(1, ELEMENTS_PER_CALL // (shape[0] * shape[1] * shape[2] * shape[3]))
        rows: dict[str, dict[str, object]] = {}
        for name in (NATIVE, *LAYERS):
            rows[name] = {}
            for layout in LAYOUTS:
                ratio = times[f"{name}|{layout}"] / times[f"{NATIVE}|{layout}"]
                ratios.setdefault((name, layout), []).append(ratio)
                rows[name] |= {
                    f"{layout} ms": 1e3 * times[f"{name}|{layout}"] / repeats,
                    f"× {layout}": ratio,
                }
        table(f"{'x'.join(map(str, shape))}, median of {rounds} rounds, × = against {NATIVE} in that layout", rows)
    show(
        "geometric mean over the shapes, core-seconds against the native pair in the same layout",
        {f"{name}, {layout}": statistics.geometric_mean(r) for (name, layout), r in ratios.items() if name != NATIVE},
    )


if __name__ == "__main__":
    main()

"""Forward and backward pass of layers by each lowering, against torch.compile and against nn.BatchNorm2d + nn.ReLU.

python tests/bench/bench_compile.py [ROUNDS] [--shapes 64x32x24x24 …] [--layouts NCHW channels_last]

torch.compile (inductor for the CPU) gets the straight-line torch source of the layer: what an exported file holds. All
run in turn in one process, one thread, core-time; compiling is left out and shown below. Layers: bn-relu, evonorm-b0
and evonorm-s0 as graphs, and five seeded random graphs with two reductions or more that have finite gradients.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from bench_layer import LAYOUTS, NATIVE, passes, repeats
from common import environment, interleaved, show, table
from graphs import reducing_graphs
from torch import nn

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import available, build_layer
from layersearch.spaces.evonorm.published import PUBLISHED

__all__: list[str] = []

COMPILED = "inductor"
SHAPES = ("32x16x16x16", "64x32x24x24", "64x64x32x32")
N_RANDOM = 5


def layers() -> dict[str, Graph]:
    """Graphs by name. Random ones whose gradients are not finite would be measured on NaN: they are passed over."""
    found = {name: canonical(PUBLISHED[name]) for name in ("bn-relu", "evonorm-b0", "evonorm-s0")}
    tame = (graph for graph in reducing_graphs(7) if _is_finite(graph))
    return found | {f"random-{k}": graph for k, graph in enumerate(itertools.islice(tame, N_RANDOM))}


def _is_finite(graph: Graph) -> bool:
    x = torch.randn(8, 16, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layer = build_layer(graph, 16)
    layer(x).sum().backward()
    grads = [x.grad, *(p.grad for p in layer.parameters())]
    return all(grad is None or bool(grad.isfinite().all()) for grad in grads)


def runs(graph: Graph, shape: tuple[int, ...], layout: torch.memory_format) -> dict[str, Callable[[], None]]:
    channels = shape[1]
    plain = build_layer(graph, channels)
    made = {
        NATIVE: nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()),
        "torch": plain,
        COMPILED: torch.compile(build_layer(graph, channels), dynamic=False),
    }
    if available()["c"] is None:
        made["c"] = build_layer(graph, channels, lowering="c")
    return {name: passes(layer, shape, layout) for name, layer in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", metavar="ROUNDS", type=int, nargs="?", default=9)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    against: dict[str, dict[str, list[float]]] = {}
    first_call: list[float] = []
    for name, graph in layers().items():
        rows: dict[str, dict[str, object]] = {}
        for text, layout in itertools.product(args.shapes, args.layouts):
            shape, memory_format = tuple(map(int, text.split("x"))), LAYOUTS[layout]
            torch.compiler.reset()
            made = runs(graph, shape, memory_format)
            begun = time.perf_counter()
            made[COMPILED]()
            first_call.append(time.perf_counter() - begun)
            for run in made.values():
                run()
            times = interleaved(made, args.rounds)
            pairs = [(run, NATIVE, "native") for run in made if run != NATIVE]
            pairs += [(run, "c", "c") for run in ("torch", COMPILED) if "c" in made]
            ratios = {f"{a} / {word}": times[a] / times[b] for a, b, word in pairs}
            for column, ratio in ratios.items():
                against.setdefault(name, {}).setdefault(column, []).append(ratio)
            rows[f"{text} {layout}"] = {"native ms": 1e3 * times[NATIVE] / repeats(shape), **ratios}
        table(f"{name}, median of {args.rounds} rounds", rows)
    everywhere = {
        column: [ratio for columns in against.values() for ratio in columns[column]]
        for column in next(iter(against.values()))
    }
    table(
        "geometric mean over shapes and layouts",
        {name: {c: statistics.geometric_mean(v) for c, v in columns.items()}
         for name, columns in {**against, "all": everywhere}.items()},
    )  # fmt: skip
    show("least and most", {column: f"{min(v):.3g} to {max(v):.3g}" for column, v in everywhere.items()})
    show("first call of torch.compile, wall seconds", {"median": statistics.median(first_call)})


if __name__ == "__main__":
    main()

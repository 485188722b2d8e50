"""Layers on a GPU: right first, then how near they come to the time that their bytes take."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice, product

import torch
from gpu_timing import Bench, Row, captured, first_line
from torch import Tensor, nn

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import LOWERINGS, available, build_layer
from layersearch.primitives.lowering.program import lower
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.running import running_moments
from layersearch.spaces.evonorm.generate import Generator
from layersearch.spaces.evonorm.published import PUBLISHED

__all__ = ["bandwidth", "compiled", "correctness", "layers", "lowerings"]

KNOWN = ("evonorm-b0", "evonorm-s0", "bn-relu")
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHAPES = {"8.4 M": (128, 64, 32, 32), "205 M": (256, 256, 56, 56)}
TINY_SHAPES = {"tiny": (4, 8, 6, 6)}
RAGGED = ((8, 16, 8, 8), (3, 8, 7, 5), (1, 33, 4, 6), (2, 40, 1, 1), (64, 96, 14, 14))
GROUPS = 32
NATIVE = "BatchNorm2d + ReLU"
GOALS = "goals: forward at least 0.80 and backward 0.70 of the floor at 205 M"


def lowerings(bench: Bench) -> list[str]:
    """Those that are built for the device, and ``torch``."""
    kind = bench.device.type
    found = []
    for name, why in available().items():
        row = LOWERINGS[name]
        if name == "reference" or kind not in row.devices:
            continue
        if why is None:
            found.append(name)
        else:
            bench.note(f"no lowering {name}: {why}")
    return sorted(found, key=lambda name: name == "torch")


def random_graphs(n: int) -> dict[str, Graph]:
    """Seeded graphs of the B series that float32 computes to three digits, for input and every parameter."""

    def fit() -> Iterator[Graph]:
        rng = random.Random(1)
        generator = Generator(10, batch_moments=True, p_aggregate=0.4, p_connect=0.6, numerics=Numerics())
        while True:
            graph = canonical(generator.sample(rng))
            if graph.domains[graph.output].s and _computable(graph):
                yield graph

    return {f"random {k}": graph for k, graph in enumerate(islice(fit(), n), 1)}


def _computable(graph: Graph) -> bool:
    x, g = _tensors((4, 8, 6, 6), torch.float32, torch.contiguous_format, torch.device("cpu"))
    oracle, naive = (build_layer(graph, 8, lowering="reference", groups=4) for _ in range(2))
    truth, told = _results(oracle.double(), x.double(), g.double()), _results(naive, x, g)
    sound = all(bool(t.isfinite().all()) and float(t.abs().max()) < 1e4 for t in truth.values())
    return sound and all(_error(told[name], t) < 1e-3 for name, t in truth.items())


def bandwidth(bench: Bench) -> list[Row]:
    """Copies of a large tensor, counting bytes read and written: what all floors are held against."""
    rows: list[Row] = []
    for mib in (64,) if bench.tiny else (256, 1024, 4096):
        source = torch.rand(mib * 2**18, device=bench.device)
        target = torch.empty_like(source)
        seconds = bench.medians({"copy": lambda target=target, source=source: target.copy_(source)})["copy"]
        rate = 2 * source.numel() * 4 / seconds
        bench.facts["copy_bytes_per_s"] = max(rate, bench.facts.get("copy_bytes_per_s", 0.0))
        rows.append({"MiB": mib, "TB/s": rate / 1e12})
    return rows


def correctness(bench: Bench) -> list[Row]:
    """Every lowering against float64 on the CPU: output and all gradients, as multiples of the error of node-by-node
    float32 on the same input, its results rounded to the dtype as well."""
    graphs = {name: canonical(PUBLISHED[name]) for name in (KNOWN if bench.tiny else PUBLISHED)}
    graphs |= random_graphs(1 if bench.tiny else 5 if bench.quick else 20)
    rows: list[Row] = []
    for lowering, (dtype_name, dtype) in product(lowerings(bench), DTYPES.items()):
        worst: dict[str, tuple[float, float, str]] = {}
        failed: list[str] = []
        n = 0
        for (name, graph), shape in product(graphs.items(), RAGGED[:2] if bench.tiny else RAGGED):
            if bench.late():
                bench.note("stopped early: the time of this section was spent")
                break
            layout = list(LAYOUTS.values())[n % 2]
            n += 1
            try:
                found = _errors(bench, graph, lowering, shape, dtype, layout)
            except Exception as error:
                failed.append(f"{name} {shape}: {first_line(error)}")
                continue
            for what, (ours, eager) in found.items():
                kind = {"y": "output", "x": "gradient of x"}.get(what, "gradients of parameters")
                rounded = dtype if what in ("y", "x") else torch.float32
                bound = max(eager, torch.finfo(rounded).eps / 8)  # an eager error of 0 is no yardstick
                worst[kind] = max(worst.get(kind, (0.0, 0.0, "")), (ours / bound, ours, f"{name} {shape}"))
        for what, (multiple, error, where) in worst.items():
            rows.append(
                {
                    "lowering": lowering,
                    "dtype": dtype_name,
                    "result": what,
                    "cases": n,
                    "worst, × eager": multiple,
                    "relative error": error,
                    "where": where,
                    "failed": len(failed),
                }
            )
        for text in failed[:3]:
            bench.note(f"{lowering} {dtype_name} failed: {text}")
        if failed and not worst:
            rows.append({"lowering": lowering, "dtype": dtype_name, "cases": n, "failed": len(failed)})
    return rows


def _errors(
    bench: Bench,
    graph: Graph,
    lowering: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
) -> dict[str, tuple[float, float]]:
    x, g = _tensors(shape, dtype, layout, torch.device("cpu"))
    oracle = build_layer(graph, shape[1], lowering="reference", groups=4)
    generator = torch.Generator().manual_seed(5)
    for tensor in (*oracle.parameters(), *oracle.buffers()):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.25)
    state = {name: tensor.clone() for name, tensor in oracle.state_dict().items()}
    naive = build_layer(graph, shape[1], lowering="reference", groups=4).to(bench.device)
    naive.load_state_dict(state)
    layer = build_layer(graph, shape[1], lowering=lowering, groups=4).to(bench.device)
    layer.load_state_dict(state)
    truth = _results(oracle.double(), x.double(), g.double())
    eager = _results(naive, x.float().to(bench.device), g.float().to(bench.device))
    eager |= {name: eager[name].to(dtype) for name in ("y", "x")}
    got = _results(layer, x.to(bench.device), g.to(bench.device))
    return {name: (_error(got[name], t), _error(eager[name], t)) for name, t in truth.items()}


def _results(layer: nn.Module, x: Tensor, g: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    y = layer(x)
    named = {"x": x, **dict(layer.named_parameters())}
    found = torch.autograd.grad(y, list(named.values()), g.to(y.dtype), allow_unused=True)
    return {"y": y.detach()} | {
        name: torch.zeros_like(t) if grad is None else grad
        for (name, t), grad in zip(named.items(), found, strict=True)
    }


def _error(got: Tensor, expected: Tensor) -> float:
    """Distance relative to the norm of what was expected; infinite where something is not finite."""
    distance = float((got.double().cpu() - expected).norm() / (expected.norm() + 1e-6))
    return distance if distance == distance else float("inf")


def layers(bench: Bench) -> list[Row]:
    """Forward and backward alone, each a replayed CUDA graph with cold caches. Floor: bytes over the copy bandwidth;
    × native: against ``nn.BatchNorm2d`` + ``nn.ReLU`` of cuDNN in the same cell."""
    bench.note(GOALS)
    fused = lowerings(bench)[0]
    graphs = {name: canonical(PUBLISHED[name]) for name in KNOWN}
    graphs |= random_graphs(1 if bench.tiny else 2 if bench.quick else 5)
    shapes = TINY_SHAPES if bench.tiny else dict(reversed(SHAPES.items()))
    rows: list[Row] = []
    for (name, graph), (size, shape), dtype, layout in product(graphs.items(), shapes.items(), DTYPES, LAYOUTS):
        if bench.late():
            bench.note(f"left out from {name}, {size}, {dtype}, {layout} on: the time of this section was spent")
            break
        made: dict[str, Callable[[], nn.Module]] = {
            NATIVE: lambda c=shape[1]: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()),
            fused: lambda c=shape[1], graph=graph: build_layer(graph, c, lowering=fused, groups=GROUPS),
        }
        if name in KNOWN:
            made["torch"] = lambda c=shape[1], graph=graph: build_layer(graph, c, lowering="torch", groups=GROUPS)
        timm = _timm(bench, name)
        if timm is not None:
            made["timm"] = lambda c=shape[1], timm=timm: timm(c)
        rows += _cell(bench, name, graph, size, shape, dtype, layout, made)
    return rows


def compiled(bench: Bench) -> list[Row]:
    """The same against ``torch.compile`` of the straight-line torch form. Last, since it builds for each cell."""
    torch._functorch.config.donated_buffer = False  # backward is run several times
    fused = lowerings(bench)[0]
    shapes = TINY_SHAPES if bench.tiny else dict(reversed(SHAPES.items()))
    rows: list[Row] = []
    for (size, shape), dtype, name, layout in product(shapes.items(), DTYPES, KNOWN, LAYOUTS):
        if bench.tiny and (name, layout, dtype) != ("bn-relu", "NCHW", "fp32"):
            continue
        if bench.late():
            bench.note(f"left out from {name}, {size}, {dtype}, {layout} on: the time of this section was spent")
            break
        graph = canonical(PUBLISHED[name])

        def inductor(c: int = shape[1], graph: Graph = graph) -> nn.Module:
            torch._dynamo.reset()  # else the ninth layer of one class silently runs uncompiled
            layer = build_layer(graph, c, lowering="torch", groups=GROUPS)
            layer.compile(dynamic=False, backend="aot_eager" if bench.tiny else "inductor")
            return layer

        made: dict[str, Callable[[], nn.Module]] = {
            NATIVE: lambda c=shape[1]: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()),
            fused: lambda c=shape[1], graph=graph: build_layer(graph, c, lowering=fused, groups=GROUPS),
            "torch.compile": inductor,
        }
        rows += _cell(bench, name, graph, size, shape, dtype, layout, made)
    return rows


def _cell(
    bench: Bench,
    name: str,
    graph: Graph,
    size: str,
    shape: tuple[int, ...],
    dtype: str,
    layout: str,
    made: dict[str, Callable[[], nn.Module]],
) -> list[Row]:
    x, g = _tensors(shape, DTYPES[dtype], LAYOUTS[layout], bench.device)
    times: dict[tuple[str, str], float] = {}
    replayed: dict[tuple[str, str], bool] = {}
    for direction in ("forward", "backward"):
        with ExitStack() as stack:
            runs = {}
            for who, make in made.items():
                try:
                    run = _pass(make().to(bench.device), x, g, direction)
                    runs[who], replayed[who, direction] = stack.enter_context(captured(bench, run))
                except Exception as error:
                    bench.note(f"{who} failed on {name}, {size}, {dtype}, {layout}: {first_line(error)}")
            times |= {(who, direction): seconds for who, seconds in bench.medians(runs).items()}
        bench.release()
    floors = _floors(graph, x, bench)
    rows: list[Row] = []
    for who in made:
        row: Row = {"layer": name, "size": size, "dtype": dtype, "layout": layout, "by": who}
        for direction in ("forward", "backward"):
            seconds = times.get((who, direction))
            if seconds is None:
                continue
            row[f"{direction} µs"] = 1e6 * seconds
            if who != NATIVE:
                row[f"{direction}: of floor"] = floors[direction] / seconds
                if (native := times.get((NATIVE, direction))) is not None:
                    row[f"{direction}: × native"] = seconds / native
            if bench.on_gpu and not replayed[who, direction]:
                row["launched"] = "yes"
        rows.append(row)
    return rows


def _pass(layer: nn.Module, x: Tensor, g: Tensor, direction: str) -> Callable[[], object]:
    x = x.detach().requires_grad_()
    inputs = [x, *layer.parameters()]
    if direction == "forward":
        return lambda: layer(x)
    y = layer(x)
    return lambda: torch.autograd.grad(y, inputs, g.to(y.dtype), retain_graph=True, allow_unused=True)


def _floors(graph: Graph, x: Tensor, bench: Bench) -> dict[str, float]:
    """Seconds for the fewest bytes. Without moments over the batch a program may keep what it has read: x once, y once;
    backward x, g and dx once. With them, each pass of the program reads again."""
    program = lower(graph)
    again = bool(running_moments(graph))
    n_forward, n_backward = (len(p.passes) if again else 1 for p in (program.forward, program.backward))
    moved = {"forward": n_forward + 1, "backward": 2 * n_backward + 1}
    rate = bench.facts.get("copy_bytes_per_s", float("nan"))
    return {name: times * x.numel() * x.element_size() / rate for name, times in moved.items()}


def _tensors(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: torch.device
) -> tuple[Tensor, Tensor]:
    """x and the upstream gradient, drawn on the device (seeded) where they are large."""
    generator = torch.Generator(device).manual_seed(7)

    def draw(scale: float, shift: float) -> Tensor:
        t = torch.randn(shape, generator=generator, device=device).mul_(scale).add_(shift)
        return t.to(dtype).contiguous(memory_format=layout)

    return draw(1.5, 0.3), draw(1.0, 0.0)


def _timm(bench: Bench, name: str) -> Callable[[int], nn.Module] | None:
    """timm's module of a known layer."""
    if name not in ("evonorm-b0", "evonorm-s0"):
        return None
    try:
        from timm.layers import EvoNorm2dB0, EvoNorm2dS0
    except ImportError as error:
        bench.note(f"without timm: {first_line(error)}")
        return None
    return EvoNorm2dB0 if name == "evonorm-b0" else lambda c: EvoNorm2dS0(c, groups=GROUPS)

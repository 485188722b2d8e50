"""KAN layers by generated C and by torch against a bare matrix product as wide, and the rational against SiLU.

python tests/bench/bench_bases.py [ROUNDS]

Forward and backward, float32, one thread; what is compared is measured in turn. The recursions that published layers
run are written out below from their formula: the Cox–de Boor recursion over all knots at once (as in efficient-kan,
which meets the weights in one product), and the same with a tensor of all edges (as in pykan). The packages themselves
(``pip install pykan``, https://github.com/Blealtan/efficient-kan) are measured, too, where they can be imported.
"""

import contextlib
import importlib
import math
import sys
from collections.abc import Callable

import torch
from common import environment, interleaved, table
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.primitives import BASES, GroupRational, KANLinear
from layersearch.primitives.layers._lowered import reason_against

__all__: list[str] = []

SHAPES = ((1024, 64, 64), (256, 256, 256), (1024, 5, 64))
"""N, I, O."""
WIDTH = 8
"""Functions per input, where a basis lets one choose."""
REPEAT = 3


def training(layer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward, and backward for the input and all parameters."""
    parameters = [p for p in layer.parameters() if p.requires_grad] if isinstance(layer, nn.Module) else []
    with torch.no_grad():
        upstream = torch.randn(layer(x).shape, generator=torch.Generator().manual_seed(1))

    def run() -> None:
        for _ in range(REPEAT):
            held = x.detach().requires_grad_()
            torch.autograd.grad(layer(held), [held, *parameters], upstream)

    return run


class Recursion(nn.Module):
    """B-splines by the Cox–de Boor recursion over all knots at once,

    ``B_{j,p}(x) = (x - t_j) / (t_{j+p} - t_j) B_{j,p-1}(x) + (t_{j+p+1} - x) / (t_{j+p+1} - t_{j+1}) B_{j+1,p-1}(x)``.

    Args:
        by_edge: coefficients meet the splines edge by edge and are summed over the inputs, with a scale on the splines
            and on the base branch of every edge; else one matrix product each.
    """

    def __init__(self, inputs: int, outputs: int, grid: int, order: int, *, by_edge: bool) -> None:
        super().__init__()
        self.order, self.by_edge = order, by_edge
        step = 2 / grid
        knots = torch.arange(-order, grid + order + 1) * step - 1
        self.register_buffer("knots", knots.expand(inputs, -1).contiguous())
        self.coefficients = nn.Parameter(torch.randn(outputs, inputs, grid + order) * 0.1)
        self.base = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))
        self.scale = nn.Parameter(torch.ones(outputs, inputs)) if by_edge else None

    def splines(self, x: Tensor) -> Tensor:
        x, t = x.unsqueeze(-1), self.knots
        found = ((x >= t[:, :-1]) & (x < t[:, 1:])).to(x.dtype)
        for p in range(1, self.order + 1):
            rising = (x - t[:, : -p - 1]) / (t[:, p:-1] - t[:, : -p - 1]) * found[..., :-1]
            falling = (t[:, p + 1 :] - x) / (t[:, p + 1 :] - t[:, 1:-p]) * found[..., 1:]
            found = rising + falling
        return found

    def forward(self, x: Tensor) -> Tensor:
        found = self.splines(x)
        if self.scale is None:
            return F.linear(F.silu(x), self.base) + F.linear(found.flatten(1), self.coefficients.flatten(1))
        edges = torch.einsum("nik,oik->noi", found, self.coefficients)
        return (self.base * F.silu(x).unsqueeze(1) + self.scale * edges).sum(-1)


class FirstOf(nn.Module):
    """The first of the tensors that a layer gives: pykan's gives those of its edges, too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)[0]
        return found


def packages(inputs: int, outputs: int) -> dict[str, nn.Module]:
    """Layers of the published packages that are installed, with 5 intervals and cubic splines."""
    found: dict[str, nn.Module] = {}
    with contextlib.suppress(ImportError):
        kan = importlib.import_module("kan")
        found["pykan, KANLayer"] = FirstOf(kan.KANLayer(inputs, outputs, num=5, k=3))
    with contextlib.suppress(ImportError):
        efficient_kan = importlib.import_module("efficient_kan")
        found["efficient-kan, KANLinear"] = efficient_kan.KANLinear(inputs, outputs, grid_size=5, spline_order=3)
    return found


def settings(name: str) -> dict[str, int]:
    """The degree or grid for which the basis has ``WIDTH`` functions, or the nearest it has."""
    row = BASES[name]
    if name == "rational":
        return {}
    return {row.knob: min(range(2, 2 * WIDTH), key=lambda v: abs(row.configure(**{row.knob: v}).n_functions - WIDTH))}


def layer(name: str, inputs: int, outputs: int, lowering: str, base: str | None = None) -> nn.Module:
    made = KANLinear(inputs, outputs, name, base=base, **settings(name))
    made.functions.lowering = lowering
    return made


def against_products(n: int, inputs: int, outputs: int, rounds: int) -> None:
    """Every basis layer without its base branch: over the product of a tensor as wide as its features."""
    x = torch.randn(n, inputs, generator=torch.Generator().manual_seed(0))
    rows: dict[str, dict[str, object]] = {}
    for name in BASES:
        if name == "rational":
            continue
        ways = {way: layer(name, inputs, outputs, way) for way in WAYS}
        width = ways["torch"].basis.n_functions * inputs  # type: ignore[union-attr, operator]
        product = nn.Linear(width, outputs)
        wide = torch.randn(n, width, generator=torch.Generator().manual_seed(0))
        runs = {"product": training(product, wide)} | {way: training(made, x) for way, made in ways.items()}
        for run in runs.values():
            run()
        times = interleaved(runs, rounds)
        rows[name] = {"K": width // inputs, "product ms": 1e3 * times["product"] / REPEAT}
        rows[name] |= {f"{way}, x": times[way] / times["product"] for way in ways}
    table(f"N {n}, I {inputs}, O {outputs}: core-time against the product alone (goal: at most 2.5)", rows)


def against_recursions(n: int, inputs: int, outputs: int, rounds: int) -> None:
    """B-spline layers with their base branch against the published recursions and packages (goal: 3 times faster)."""
    x = 0.5 * torch.randn(n, inputs, generator=torch.Generator().manual_seed(0))
    runs = {
        "recursion, one product": training(Recursion(inputs, outputs, 5, 3, by_edge=False), x),
        "recursion, edge by edge": training(Recursion(inputs, outputs, 5, 3, by_edge=True), x),
    }
    runs |= {name: training(made, x) for name, made in packages(inputs, outputs).items()}
    runs |= {f"ours, {way}": training(layer("bspline", inputs, outputs, way, "silu"), x) for way in WAYS}
    for run in runs.values():
        run()
    times = interleaved(runs, rounds)
    rows: dict[str, dict[str, object]] = {
        name: {
            "ms": 1e3 * seconds / REPEAT,
            **{f"/ ours, {way}": seconds / times[f"ours, {way}"] for way in WAYS},
        }
        for name, seconds in times.items()
    }
    table(f"N {n}, I {inputs}, O {outputs}: cubic B-splines on 5 intervals, base branch included", rows)


def rationals(rounds: int) -> None:
    """The grouped rational 5/4 of 8 groups against SiLU, forward and backward."""
    rows: dict[str, dict[str, object]] = {}
    for shape, dim in (((2048, 768), -1), ((256, 64), -1), ((4096, 192), -1), ((32, 64, 28, 28), 1)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        runs = {"silu": training(F.silu, x)}
        runs |= {way: training(GroupRational(shape[dim], 8, "silu", dim=dim, lowering=way), x) for way in WAYS}
        for run in runs.values():
            run()
        times = interleaved(runs, rounds)
        rows["x".join(map(str, shape))] = {"silu ms": 1e3 * times["silu"] / REPEAT} | {
            f"{way}, x silu": times[way] / times["silu"] for way in WAYS
        }
    table("grouped rational against SiLU (goal: at most 3)", rows)


WAYS = [way for way in ("c", "torch") if way == "torch" or reason_against(way) is None]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch.set_num_threads(1)
    print(environment("numpy"))
    rationals(rounds)
    for shape in SHAPES:
        against_recursions(*shape, rounds)
    for shape in SHAPES:
        against_products(*shape, rounds)


if __name__ == "__main__":
    main()

"""Starts of KANs against published results: the KAN-Init suite, and pykan's tutorial function by grid refinement.

python tests/bench/compare_kan_init.py suite [--size 8x8-5|32x32-20] [--seeds 5] [--functions f1,f2] [--inits branch]
python tests/bench/compare_kan_init.py tutorial [--seeds 1]
python tests/bench/compare_kan_init.py moments
python tests/bench/compare_kan_init.py show

Every training is kept in --out (kan_init.json) as it ends: what is there is not run again. The protocol of the suite is
that of arXiv:2509.03417: 5,000 points in [-1, 1]², four fifths for training, Adam at 1e-3, 2,000 full-batch steps on
the mean squared error, cubic B-splines with a SiLU branch; errors are root mean squares in the units of the target, on
the fifth that was kept and on the source's 200 × 200 grid. Ours differ in having a bias per node. The tutorial is
Example 1 of pykan's documentation: exp(sin(pi x) + y²), widths 2-1-1, 1,000 points to train and 1,000 to test, 200
steps of L-BFGS per grid. ``moments`` are the second moments of what new layers of every basis give for N(0, 1) inputs,
which have to be in [0.5, 2]: after each of 4 layers of 64, and after one of 1,024.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import environment, table

__all__: list[str] = []

SIZES = {"8x8-5": ((8, 8), 5), "32x32-20": ((32, 32), 20)}
FUNCTIONS = ("f1", "f2", "f3", "f4", "f5")
INITS = ("branch", "glorot", "power", "variance")
STEPS, POINTS, RATE = 2000, 5000, 1e-3
# Medians over 5 seeds, from the raw files of github.com/srigas/KAN_Initialization_Schemes.
PUBLISHED = {
    "8x8-5": {
        "default": (2.1e-3, 1.4e-2, 3.6e-3, 1.4e-2, 6.8e-2),
        "glorot": (3.6e-3, 1.3e-2, 4.7e-3, 2.0e-2, 7.0e-2),
        "lecun": (1.4e-2, 6.0e-2, 2.4e-2, 2.7e-2, 1.01e-1),
    },
    "32x32-20": {
        "default": (1.6e-1, 2.4e-1, 1.7e-1, 1.5e-1, 2.0e-1),
        "glorot": (1.3e-3, 7.6e-3, 1.5e-3, 1.3e-2, 1.1e-1),
    },
}
TUTORIAL = {3: 1.53e-2, 10: 3.29e-4, 20: 4.04e-5, 50: 1.24e-5, 100: 1.74e-3}
_SEGMENTS = (10, 10, 10, 10, 10, 150)  # the grid follows the data before each, as pykan's does in its first 50 steps


def suite(name: str, hidden: tuple[int, ...], grid: int, init: str, seed: int) -> dict[str, float]:
    """One training of the suite."""
    import torch
    from torch.nn import functional as F

    from layersearch.primitives import KANLinear
    from layersearch.primitives.seeds import Seeds
    from layersearch.spaces.tasks.functions import FUNCTIONS as ROWS
    from layersearch.spaces.tasks.functions import Sampling, sampled

    (x, y), (grid_x, grid_y) = sampled(f"fn:{name}", ROWS[name], Sampling(POINTS, 1, seed))
    points, target = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32).unsqueeze(1)
    cut = POINTS * 4 // 5
    generator = torch.Generator().manual_seed(Seeds(seed).derive("init", name))
    widths = (2, *hidden, 1)
    model = torch.nn.Sequential(
        *(
            KANLinear(i, o, "bspline", grid=grid, domain="none", init=init, generator=generator)
            for i, o in itertools.pairwise(widths)
        )
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    begin = time.process_time()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.mse_loss(model(points[:cut]), target[:cut])
        loss.backward()
        optimizer.step()
    seconds = time.process_time() - begin
    return {
        "train": math.sqrt(loss.item()),
        "test": _rmse(model, points[cut:], target[cut:]),
        "grid": _rmse(model, torch.tensor(grid_x).float(), torch.tensor(grid_y).float().unsqueeze(1)),
        "core_s": seconds,
    }


def tutorial(seed: int) -> dict[str, float]:
    """The error on the test points after each grid."""
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from layersearch.primitives import KANLinear
    from layersearch.primitives.seeds import Seeds

    generator = torch.Generator().manual_seed(Seeds(seed).derive("tutorial"))
    x = torch.rand(2000, 2, generator=generator, dtype=torch.float64) * 2 - 1
    y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
    layers = [
        KANLinear(i, 1, "bspline", grid=min(TUTORIAL), domain="none", generator=generator, dtype=torch.float64)
        for i in (2, 1)
    ]
    model = torch.nn.Sequential(*layers)
    found = {}
    begin = time.process_time()
    for grid in TUTORIAL:
        for layer in layers:
            if grid != layer.basis.grid:
                layer.extend_grid(grid)
        for steps in _SEGMENTS:
            seen: Tensor = x[:1000]
            for layer in layers:
                layer.update_grid(seen)
                seen = layer(seen).detach()
            optimizer = torch.optim.LBFGS(
                model.parameters(), history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-32,
                tolerance_change=1e-32,
            )  # fmt: skip

            def closure(optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
                optimizer.zero_grad()
                loss = F.mse_loss(model(x[:1000]), y[:1000])
                loss.backward()
                return loss

            for _ in range(steps):
                optimizer.step(closure)
        found[str(grid)] = _rmse(model, x[1000:], y[1000:])
    return {**found, "core_s": time.process_time() - begin}


def moments() -> None:
    """Smallest and largest by start and branch, and how many of the cases leave the range."""
    import torch

    from layersearch.primitives import BASES, KANLinear

    rows: dict[str, dict[str, object]] = {}
    for init, base in itertools.product(INITS, ("silu", None)):
        cases = []
        for name, (width, depth) in itertools.product(BASES, ((64, 4), (1024, 1))):
            generator = torch.Generator().manual_seed(3)
            x, found = torch.randn(128, width, generator=generator), []
            for _ in range(depth):
                layer = KANLinear(width, width, name, base=base, init=init, generator=generator, lowering="torch")
                x = layer(x).detach()
                found.append(x.square().mean().item())
            cases.append(found)
        outside = sum(min(found) < 0.5 or max(found) > 2 for found in cases)
        rows[f"{init}, {base or 'no'} branch"] = {
            "smallest": min(map(min, cases)), "largest": max(map(max, cases)), "outside": f"{outside} of {len(cases)}"
        }  # fmt: skip
    table("second moments of outputs", rows)


def _rmse(model: Any, x: Any, y: Any) -> float:
    import torch

    with torch.no_grad():
        return math.sqrt((model(x).double() - y.double()).square().mean().item())


class Kept:
    """Results by case, in a file that is replaced as a whole after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def run(self, case: str, work: Any) -> None:
        if case in self.rows:
            return
        self.rows[case] = {**work(), "measured": environment()}
        draft = self.path.with_name(f".{self.path.name}.draft")
        draft.write_text(json.dumps(self.rows, indent=1, sort_keys=True))
        draft.replace(self.path)
        print(case, {k: v if isinstance(v, str) else float(f"{v:.3g}") for k, v in self.rows[case].items()}, flush=True)

    def of(self, kind: str) -> Iterator[tuple[list[str], dict[str, Any]]]:
        for case, row in self.rows.items():
            parts = case.split("/")
            if parts[0] == kind:
                yield parts[1:], row


def show(kept: Kept) -> None:
    for size, published in PUBLISHED.items():
        rows: dict[str, dict[str, object]] = {
            f"published {name}": dict(zip(FUNCTIONS, values, strict=True)) for name, values in published.items()
        }
        for where in ("test", "grid"):
            for init in INITS:
                found: dict[str, list[float]] = {name: [] for name in FUNCTIONS}
                for (s, name, i, _), row in kept.of("suite"):
                    if (s, i) == (size, init):
                        found[name].append(row[where])
                if any(found.values()):
                    counts = sorted({len(v) for v in found.values()})
                    rows[f"{init}, {where}, {'/'.join(map(str, counts))} seeds"] = {
                        n: statistics.median(v) if v else "-" for n, v in found.items()
                    }
        table(f"suite, {size}: median RMSE", rows)
    runs = [row for _, row in kept.of("tutorial")]
    grids = {f"G={grid}": value for grid, value in TUTORIAL.items()}
    found = {f"G={grid}": statistics.median(row[str(grid)] for row in runs) for grid in TUTORIAL} if runs else {}
    best = {f"G={grid}": min(row[str(grid)] for row in runs) for grid in TUTORIAL} if runs else {}
    ours = {f"ours, median of {len(runs)}": found, f"ours, best of {len(runs)}": best} if runs else {}
    table("tutorial: RMSE on the test points", {"pykan": grids, **ours})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("suite", "tutorial", "moments", "show"))
    parser.add_argument("--size", choices=tuple(SIZES), default="8x8-5")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--functions", default=",".join(FUNCTIONS))
    parser.add_argument("--inits", default=",".join(INITS))
    parser.add_argument("--out", type=Path, default=Path("kan_init.json"))
    given = parser.parse_args()
    if given.what == "moments":
        moments()
        return
    kept = Kept(given.out)
    if given.what == "suite":
        hidden, grid = SIZES[given.size]
        for seed in range(given.seeds):
            for name in given.functions.split(","):
                for init in given.inits.split(","):
                    kept.run(
                        f"suite/{given.size}/{name}/{init}/{seed}",
                        lambda n=name, i=init, s=seed: suite(n, hidden, grid, i, s),
                    )
    elif given.what == "tutorial":
        for seed in range(given.seeds):
            kept.run(f"tutorial/{seed}", lambda s=seed: tutorial(s))
    show(kept)


if __name__ == "__main__":
    main()

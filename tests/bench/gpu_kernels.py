"""Kernels written for layers on a GPU: grouped rationals against the time of their bytes, and features in a product."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import product

import torch
from gpu_atomics import AtomicRational
from gpu_timing import Bench, Row, captured, first_line
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.kernels.codegen._triton_load import why_no_triton
from layersearch.primitives import BASES, GroupRational, KANLinear
from layersearch.primitives.layers._lowered import reason_against

__all__ = ["products", "rationals"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KAT = {"KAT-B hidden": (25216, 3072), "KAT-B": (201728, 768), "KAT-T": (201728, 192), "small": (8192, 192)}
SIZES = {"65536, 256 to 256": (65536, 256, 256), "1024, 64 to 64": (1024, 64, 64)}
GROUPS = 8
BASES_IN_PROLOGUE = {"bspline": {"grid": 5}, "chebyshev": {"degree": 7}, "fourier": {"grid": 4}, "rbf": {"grid": 8}}
"""Eight functions each."""


def fused_ways(bench: Bench) -> list[str]:
    """Lowerings of the device, and ``torch``."""
    name = "triton" if bench.on_gpu else "c"
    why = reason_against(name)
    if why is None:
        return [name, "torch"]
    bench.note(f"no lowering {name}: {why}")
    return ["torch"]


def _tensors(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(bench.device).manual_seed(7)
    x, g = (torch.randn(shape, generator=generator, device=bench.device) for _ in range(2))
    return x.to(dtype), g.to(dtype)


def _pass(layer: Callable[[Tensor], Tensor], x: Tensor, g: Tensor, direction: str) -> Callable[[], object]:
    x = x.detach().requires_grad_()
    inputs = [x, *(layer.parameters() if isinstance(layer, nn.Module) else [])]
    if direction == "forward":
        return lambda: layer(x)
    y = layer(x)
    return lambda: torch.autograd.grad(y, inputs, g, retain_graph=True)


def _times(bench: Bench, runs: dict[str, Callable[[], Callable[[], object]]], what: str) -> dict[str, float]:
    """Seconds of each, as replayed graphs; what fails is noted and left out."""
    with ExitStack() as stack:
        ready = {}
        for name, make in runs.items():
            try:
                ready[name], _ = stack.enter_context(captured(bench, make()))
            except Exception as error:
                bench.note(f"{name} failed on {what}: {first_line(error)}")
        found = bench.medians(ready)
    bench.release()
    return found


def rationals(bench: Bench) -> list[Row]:
    """Grouped rational 5/4, 8 groups, forward and backward alone, each a replayed CUDA graph with cold caches. Floor:
    bytes over the copy bandwidth. By atomic additions: the two published forms of the backward pass, float32 alone."""
    bench.note("goals: at most 1.3 × GELU; forward 0.85 and backward 0.80 of the floor; blocks' atomics 1.3 × ours")
    rate = bench.facts.get("copy_bytes_per_s", float("nan"))
    rows: list[Row] = []
    atomics: dict[str, AtomicRational] = {}
    if bench.on_gpu and why_no_triton() is None:
        atomics = {"atomics per block": AtomicRational(False), "atomics per element": AtomicRational(True)}
        for name, form in atomics.items():
            bench.note(f"{name}: relative error {form.error(bench.device):.1e}")
    for (size, shape), dtype in product(({"tiny": (64, 48)} if bench.tiny else KAT).items(), DTYPES):
        if bench.late():
            bench.note(f"left out from {size}, {dtype} on: the time of this section was spent")
            break
        x, g = _tensors(bench, shape, DTYPES[dtype])
        layers: dict[str, Callable[[Tensor], Tensor]] = {
            way: GroupRational(shape[1], GROUPS, "gelu", lowering=way).to(bench.device) for way in fused_ways(bench)
        }
        layers["GELU"] = F.gelu
        times: dict[str, dict[str, float]] = {}
        for direction in ("forward", "backward"):
            runs = {n: (lambda f=f, d=direction: _pass(f, x, g, d)) for n, f in layers.items()}  # noqa: B023
            if direction == "backward":
                a, b = torch.randn(6, device=bench.device), torch.randn(GROUPS, 4, device=bench.device)
                wide = x.float(), g.float()
                if x.numel() < 1e8:  # one addition per element and coefficient takes a second there
                    runs |= {n: (lambda f=f: lambda: f.backward(wide[1], wide[0], a, b)) for n, f in atomics.items()}  # noqa: B023
            times[direction] = _times(bench, runs, f"{size}, {dtype}, {direction}")  # type: ignore[arg-type]
        for name in (*layers, *atomics):
            row: Row = {"size": size, "dtype": dtype, "by": name}
            for direction, moved in (("forward", 2), ("backward", 3)):
                seconds = times[direction].get(name)
                if seconds is None:
                    continue
                row[f"{direction} µs"] = 1e6 * seconds
                row[f"{direction}: of floor"] = moved * x.numel() * x.element_size() / rate / seconds
                row[f"{direction}: × GELU"] = seconds / times[direction].get("GELU", float("nan"))
            rows.append(row)
    return rows


def products(bench: Bench) -> list[Row]:
    """KAN layers of 8 functions without a base branch: features in the prologue of the product (fused), stored by torch
    and multiplied (stored), and the product of a tensor as wide alone. float32 with TF32."""
    bench.note("goals: fused at least 1.5 times as fast as stored, at most 1.6 × the product alone")
    was = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return _products(bench)
    finally:
        torch.set_float32_matmul_precision(was)


def _products(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    sizes = {"tiny": (40, 6, 5)} if bench.tiny else SIZES
    for (size, (n, i, o)), dtype, (name, settings) in product(sizes.items(), DTYPES, BASES_IN_PROLOGUE.items()):
        if bench.late():
            bench.note(f"left out from {size}, {dtype}, {name} on: the time of this section was spent")
            break
        held = DTYPES[dtype]
        x, _ = _tensors(bench, (n, i), held)
        _, g = _tensors(bench, (n, o), held)
        basis = BASES[name].configure(**settings)
        made = {
            ("stored" if way == "torch" else "fused"): KANLinear(i, o, basis, base=None, lowering=way, dtype=held)
            for way in fused_ways(bench)
        }
        layers: dict[str, nn.Module] = {who: layer.to(bench.device) for who, layer in made.items()}
        layers["product alone"] = nn.Linear(basis.n_functions * i, o, dtype=held, device=bench.device)
        wide, _ = _tensors(bench, (n, basis.n_functions * i), held)
        times: dict[str, dict[str, float]] = {}
        for direction in ("forward", "backward"):
            runs = {
                who: (lambda f=f, u=wide if who == "product alone" else x, d=direction: _pass(f, u, g, d))  # noqa: B023
                for who, f in layers.items()
            }
            times[direction] = _times(bench, runs, f"{name}, {size}, {dtype}, {direction}")  # type: ignore[arg-type]
        error = _difference(layers, x) if "fused" in layers else None
        for who in layers:
            row: Row = {"basis": name, "size": size, "dtype": dtype, "by": who}
            for direction, found in times.items():
                if who in found:
                    row[f"{direction} µs"] = 1e6 * found[who]
                    row[f"{direction}: × product"] = found[who] / found.get("product alone", float("nan"))
                    if who == "fused" and "stored" in found:
                        row[f"{direction}: stored / fused"] = found["stored"] / found["fused"]
            if who == "fused" and error is not None:
                row["difference from stored"] = error
            rows.append(row)
    return rows


def _difference(layers: dict[str, nn.Module], x: Tensor) -> float:
    """Of the outputs of the same weights, relative to their norm."""
    layers["fused"].load_state_dict(layers["stored"].state_dict())
    with torch.no_grad():
        fused, stored = layers["fused"](x).double(), layers["stored"](x).double()
    return float((fused - stored).norm() / stored.norm())

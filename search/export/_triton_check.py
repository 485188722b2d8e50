"""Runs the kernels of an exported file by Triton's interpreter, in a process that has no layersearch."""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import build_layer
from layersearch.search.export._check import batch, oracle, randomize
from layersearch.search.export.base import ExportError, Subject

__all__ = ["check_kernels"]

_SHAPES = (((3, 8, 5, 3), 4), ((1, 4, 129, 128), 2))
"""Shape and groups: one that programs hold whole planes of, and one whose planes are split among several."""
_MULTIPLE = 10
_LEAST = 1e-5
_SPOILT = 1e-2
"""From here on float32 is no good, near a division by 0 for example: such an error says nothing of the kernels."""
_SHAKES = 4
_TIMEOUT_S = 600
_CHILD = """
import importlib.machinery, importlib.util, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "layersearch":
            raise ImportError("the file must not need layersearch")
sys.meta_path.insert(0, Refuse())
import torch
loader = importlib.machinery.SourceFileLoader("exported_layer", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(module)
def plain(*_):
    raise AssertionError("the kernels were not used")
module.Layer.__mro__[1].forward = plain
answers = []
for case in torch.load(sys.argv[2], weights_only=True):
    layer = module.Layer(case["channels"], **case["options"])
    layer.load_state_dict(case["state"])
    layer.train(case["training"])
    x = case["x"].requires_grad_()
    y = layer(x)
    y.backward(case["g"])
    found = {"output": y.detach(), "gradient of x": x.grad}
    found |= {f"gradient of {name}": p.grad for name, p in layer.named_parameters()}
    answers.append(found | {f"buffer {name}": b for name, b in layer.named_buffers()})
torch.save(answers, sys.argv[3])
"""


def check_kernels(subject: Subject, path: Path) -> float:
    """Output, gradients and buffers after a step, in both modes and layouts, against the reference in float64.

    An error is a distance relative to the norm, or that of the worst element to the greatest, the larger one; ten times
    that of float32 arithmetic in plain torch is allowed, and as much as shaking the input by 1e-7 moves the result by.
    Returns: the largest error, results that float32 cannot give left aside.
    Raises: ExportError if there is a larger one, or the file cannot be run.
    """
    cases = [
        _case(subject.graph, shape, groups, training, channels_last)
        for shape, groups in _SHAPES
        for training in (True, False)
        for channels_last in (False, True)
    ]
    worst = 0.0
    for case, answer in zip(cases, _answers(path, cases), strict=True):
        worst = max(worst, _compared(subject.graph, case, answer))
    return worst


def _case(graph: Graph, shape: tuple[int, ...], groups: int, training: bool, channels_last: bool) -> dict[str, Any]:
    expected = oracle(graph, shape[1], groups)
    randomize(expected, seed=1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    g = (batch(shape, seed=4) * 8).round() / 8  # sums of it are exact
    return {
        "channels": shape[1],
        "options": {"groups": groups} if graph.uses_group_moments() else {},
        "training": training,
        "state": {name: value.float() for name, value in expected.state_dict().items()},
        "x": batch(shape, seed=2).float().contiguous(memory_format=layout),
        "g": g.float().contiguous(memory_format=layout),
    }


def _answers(path: Path, cases: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
    with tempfile.TemporaryDirectory(prefix="layersearch-export-") as folder:
        given, answered = Path(folder) / "given.pt", Path(folder) / "answers.pt"
        torch.save(cases, given)
        command = [sys.executable, "-B", "-c", _CHILD, str(path.absolute()), str(given), str(answered)]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, cwd=folder, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"the kernels must run in Triton's interpreter within {_TIMEOUT_S} s, and did not; try again, or use "
                "--format python"
            ) from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(
                f"the kernels must run in Triton's interpreter, got: {said:.300}; report this with the genome"
            )
        answers: list[dict[str, Tensor]] = torch.load(answered, weights_only=True)
        return answers


def _compared(graph: Graph, case: Mapping[str, Any], answer: Mapping[str, Tensor]) -> float:
    shape = case["x"].shape
    groups = case["options"].get("groups")
    of = functools.partial(_results, graph, case, groups)
    expected = of("reference", torch.float64)
    others = [of("torch", torch.float32), *(of("reference", torch.float64, seed) for seed in range(_SHAKES))]
    worst = 0.0
    for name, value in expected.items():
        known = torch.isfinite(value)
        for other in others:
            known &= torch.isfinite(other[name])
        if not bool(known.any()):
            continue
        missed = _error(answer[name], value, known)
        allowed = _LEAST + _MULTIPLE * max(_error(other[name], value, known) for other in others)
        if not missed <= allowed:
            mode = "training" if case["training"] else "eval mode"
            raise ExportError(
                f"the kernels must compute what the genome says, but the {name} in {mode} of {tuple(shape)} is off by "
                f"{missed:.3g} (allowed {allowed:.3g}); nothing was written, report this with the genome"
            )
        worst = max(worst, missed if allowed < _SPOILT else 0.0)
    return worst


def _results(
    graph: Graph,
    case: Mapping[str, Any],
    groups: int | None,
    lowering: str,
    dtype: torch.dtype,
    seed: int | None = None,
) -> dict[str, Tensor]:
    """What the process answers, by another lowering; with a ``seed``, at an input that is shaken by rounding errors."""
    x = case["x"].to(dtype)
    layer: nn.Module = build_layer(graph, x.shape[1], lowering=lowering, groups=groups).to(dtype)
    layer.load_state_dict(case["state"])
    layer.train(case["training"])
    if seed is not None:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        x = x * (1 + torch.finfo(torch.float32).eps * noise)
    x = x.detach().requires_grad_()
    y = layer(x)
    named = {"x": x, **dict(layer.named_parameters())}
    grads = torch.autograd.grad(y, list(named.values()), case["g"].to(dtype), allow_unused=True, materialize_grads=True)
    found = {"output": y.detach()}
    found |= {f"gradient of {name}": grad for name, grad in zip(named, grads, strict=True)}
    return found | {f"buffer {name}": value.detach() for name, value in layer.named_buffers()}


def _error(got: Tensor, expected: Tensor, known: Tensor) -> float:
    missed, size = (got.double() - expected)[known], expected[known]
    both = (missed.norm() / (1e-6 + size.norm()), missed.abs().max() / (1e-6 + size.abs().max()))
    return float(torch.stack(both).max())

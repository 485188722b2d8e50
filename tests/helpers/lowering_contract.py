"""What the contract of lowerings is stated over: the lowerings, the known layers, and a sample of random graphs."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from graphs import reducing_graphs
from lowered import FLOAT32, HALF, Truth, error, limit, oracle_of, truth
from torch import Tensor, nn

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import LOWERINGS, available, build_layer
from layersearch.spaces.evonorm.published import PUBLISHED

__all__ = [
    "FORMATS",
    "KNOWN",
    "N_SAMPLE",
    "SOME_KNOWN",
    "UNDER_CONTRACT",
    "Make",
    "Subject",
    "check",
    "laid_out",
    "ready",
    "refuse_fallback",
    "same",
    "sample",
    "subjects",
]

FORMATS = (torch.contiguous_format, torch.channels_last)
KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
N_SAMPLE = 20 * max(2, int(os.environ.get("LAYERSEARCH_ROUNDS", "2")))
"""Graphs of the sample that are run: a prefix, the same for all lowerings."""
SOME_KNOWN = ("bn-relu", "evonorm-b0", "evonorm-s0")
_SHAPES = ((3, 8, 7, 5), (2, 7, 5, 9), (1, 33, 4, 6), (5, 12, 3, 4), (2, 40, 6, 5))
Make = Callable[..., nn.Module]
"""``make(graph, channels, training=True)``: a layer with the state of the oracle."""
_GENERATED = "layersearch.generated"


@dataclass(frozen=True)
class Entry:
    """A lowering under contract: its name in ``LOWERINGS``, a device, and the dtypes of x that it computes itself.

    Parameters are float64 for x in float64, else float32.
    """

    name: str
    device: str
    dtypes: tuple[torch.dtype, ...]


UNDER_CONTRACT = (
    Entry("torch", "cpu", (torch.float64, FLOAT32, *HALF)),
    Entry("c", "cpu", (FLOAT32, *HALF)),
)


@dataclass(frozen=True)
class Subject:
    """A lowering at work on x of one dtype."""

    name: str
    device: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.name}-{self.device}-{str(self.dtype).removeprefix('torch.')}"

    def why_not(self) -> str | None:
        """Why it cannot be run here."""
        assert self.device in LOWERINGS[self.name].devices
        if self.device == "cuda" and not torch.cuda.is_available():
            return "no CUDA device"
        reason = available()[self.name]
        return None if reason is None else f"lowering {self.name}: {reason}"

    def layer(self, graph: Graph, channels: int, training: bool = True) -> nn.Module:
        """The layer with the parameters and buffers of the oracle."""
        layer = build_layer(graph, channels, lowering=self.name, groups=4)
        dtype = FLOAT32 if self.dtype in HALF else self.dtype
        layer.load_state_dict(oracle_of(graph, channels).state_dict())
        return layer.to(self.device, dtype).train(training)

    def put(self, t: Tensor) -> Tensor:
        return t.to(self.device, self.dtype)


def subjects(*dtypes: torch.dtype) -> list[Any]:
    """All lowerings under contract, with those of their dtypes that are named here; all if none is."""
    return [
        pytest.param(s, id=str(s), marks=[pytest.mark.gpu] if s.device == "cuda" else [])
        for e in UNDER_CONTRACT
        for d in e.dtypes
        if not dtypes or d in dtypes
        for s in [Subject(e.name, e.device, d)]
    ]


def check(got: dict[str, Tensor], expected: dict[str, Truth], dtype: torch.dtype, floor: float = 1e-6) -> float:
    """Asserts that all errors are within their limits, and gives the largest error over its limit.

    x and y are held in ``dtype``; gradients of parameters and running moments are not, where it is a half precision.
    """
    assert got.keys() == expected.keys()
    worst = 0.0
    for key, told in expected.items():
        allowed = limit(told.eager, dtype if key in ("x", "y") or dtype is torch.float64 else FLOAT32)
        share = error(got[key], told.value, floor) / allowed
        assert share <= 1, f"{key}: {share:.2f} of the limit, {share * allowed:.1e}; eager float32 {told.eager:.1e}"
        worst = max(worst, share)
    return worst


def same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return got.keys() == expected.keys() and all(torch.equal(got[key], value) for key, value in expected.items())


def laid_out(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    return x.contiguous(memory_format=memory_format)


def ready(subject: Subject) -> Subject:
    """The subject of a test, or a skip with the reason."""
    reason = subject.why_not()
    if reason is not None:
        pytest.skip(reason)
    return subject


def refuse_fallback(monkeypatch: pytest.MonkeyPatch, layer: nn.Module) -> None:
    """Lowerings leave what they do not cover to the torch lowering; here a test would pass by it and say nothing."""
    for cls in type(layer).__mro__:
        if cls.__module__ == _GENERATED:
            monkeypatch.setattr(cls, "forward", _refused)
            return
    raise AssertionError(f"{type(layer)} must derive from the torch lowering's class, so that it can be shut off")


def _refused(self: nn.Module, x: Tensor) -> Tensor:
    pytest.fail(f"the torch lowering is run for x of shape {tuple(x.shape)}, {x.dtype}")


def _fit() -> Iterator[tuple[Graph, tuple[int, ...]]]:
    """Random graphs, each with a shape, that eager float32 computes to three digits in training and in eval mode."""
    k = 0
    for graph in reducing_graphs(seed=8):
        shape = _SHAPES[k % len(_SHAPES)]
        told = [t for training in (True, False) for t in truth(graph, shape, training).values()]
        if all(t.eager < 1e-3 and float(t.value.abs().max()) < 1e4 for t in told):
            k += 1
            yield graph, shape


_drawn = _fit()
_sample: list[tuple[Graph, tuple[int, ...]]] = []


def sample(k: int) -> tuple[Graph, tuple[int, ...]]:
    """The k-th random graph, and the shape it is run on; drawn when first asked for."""
    _sample.extend(itertools.islice(_drawn, max(0, k + 1 - len(_sample))))
    return _sample[k]

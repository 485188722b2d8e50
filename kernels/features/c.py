"""Families of functions as generated C for the CPU: float32, one thread, equal bits for equal input.

Forward writes all functions of every element in one pass, in the layout of the matrix product that follows; backward
computes them again from x. One library serves all numbers of functions and inputs of a form.
"""

import ctypes
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from layersearch.kernels.codegen._compile import library
from layersearch.kernels.features._c_text import LANES, c_text
from layersearch.kernels.features.form import Features, Pieces, Profiles

__all__ = ["CFeatures", "kernel"]

_EMITTER = "features/1"
_NARROW = 48
"""Below so many inputs, several rows are taken together."""


class CFeatures:
    """Forward and backward of a form. Raises: KernelError if they cannot be built.

    All tensors are float32 without gaps. No Python lock is held while C runs.
    """

    def __init__(self, features: Features) -> None:
        loaded = library(c_text(features), _EMITTER)
        pointer, number, size = ctypes.c_void_p, ctypes.c_float, ctypes.c_long
        self._forward, self._backward = loaded.forward, loaded.backward
        self._forward.argtypes = [pointer, pointer, number, number, pointer, pointer, *[size] * 5]
        self._backward.argtypes = [pointer, pointer, pointer, number, number, *[pointer] * 4, *[size] * 5]
        self._forward.restype = self._backward.restype = None

    def forward(self, x: Tensor, tensors: list[Tensor], features: Features) -> Tensor:
        """``[N, I] -> [N, K, I]``."""
        n, inputs = x.shape
        out = torch.empty(n, features.count, inputs)
        rows, chunk = _blocks(inputs)
        held = _by_lane(tensors, features, rows)
        block = torch.empty(features.count, LANES) if rows > 1 else out
        self._forward(
            x.data_ptr(), _table(held), *features.reach, out.data_ptr(), block.data_ptr(),
            n, features.count, inputs, rows, chunk,
        )  # fmt: skip
        return out

    def backward(
        self, g: Tensor, x: Tensor, tensors: list[Tensor], features: Features, wanted: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of x ``[N, I]``, and of the tensors if they are ``wanted``."""
        n, inputs = x.shape
        count, profiles = features.count, isinstance(features.form, Profiles)
        dx = torch.empty_like(x)
        rows, chunk = _blocks(inputs)
        held = _by_lane(tensors, features, rows)
        block = torch.empty(2 * count, LANES)
        size = (2, count, rows * inputs) if profiles else (3, count - 1)
        sums = torch.zeros(size if wanted else 0, dtype=torch.float64)
        near = torch.zeros(size if wanted and profiles else 0)
        self._backward(
            g.data_ptr(), x.data_ptr(), _table(held), *features.reach, dx.data_ptr(),
            near.data_ptr() or None, sums.data_ptr() or None, block.data_ptr(), n, count, inputs, rows, chunk,
        )  # fmt: skip
        if not wanted:
            return dx, []
        if profiles:
            return dx, list(sums.view(2, count, rows, inputs).sum(2).float().unbind())
        return dx, [sums.float()]


def _blocks(inputs: int) -> tuple[int, int]:
    """Rows taken together, and lanes of a block: as even as can be for wide tensors, in whole vectors."""
    if inputs < _NARROW:
        rows = LANES // inputs
        return rows, rows * inputs
    n_blocks = -(-inputs // LANES)
    return 1, min(LANES, -(-inputs // n_blocks // 16) * 16)


def _by_lane(tensors: list[Tensor], features: Features, rows: int) -> list[Tensor]:
    if rows > 1 and isinstance(features.form, Profiles | Pieces):
        return [t.repeat(*[1] * (t.dim() - 1), rows) for t in tensors]
    return tensors


def _table(tensors: list[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    addresses = [t.data_ptr() for t in tensors]
    return (ctypes.c_void_p * 2)(*addresses, *[None] * (2 - len(addresses)))


def kernel(features: Features) -> CFeatures:
    """The one of this form in this process, for any number of functions. Raises: KernelError."""
    return _kernel(replace(features, count=0, reach=(0.0, 0.0)))


@cache
def _kernel(features: Features) -> CFeatures:
    return CFeatures(features)

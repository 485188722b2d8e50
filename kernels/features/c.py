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

_EMITTER = "features/3"
_NARROW = 48
_VECTOR = 16
"""Below so many inputs, several rows are taken together."""


class CFeatures:
    """Forward and backward of a form. Raises: KernelError if they cannot be built.

    All tensors are float32 without gaps. No Python lock is held while C runs.
    """

    def __init__(self, features: Features) -> None:
        loaded = library(c_text(features), _EMITTER)
        pointer, number, size = ctypes.c_void_p, ctypes.c_float, ctypes.c_long
        self._forward, self._backward = loaded.forward, loaded.backward
        self._forward.argtypes = [pointer, pointer, number, number, pointer, pointer, *[size] * 6]
        self._backward.argtypes = [pointer, pointer, pointer, number, number, *[pointer] * 4, *[size] * 6]
        self._forward.restype = self._backward.restype = None

    def forward(self, x: Tensor, tensors: list[Tensor], features: Features) -> Tensor:
        """``[N, I] -> [N, K, I]``."""
        n, inputs = x.shape
        out = torch.empty(n, features.count, inputs)
        rows, chunk, pitch = _blocks(inputs)
        held = _by_lane(tensors, features, rows, pitch)
        block = torch.empty(features.count, LANES) if rows > 1 else out
        self._forward(
            x.data_ptr(), _table(held, features), *features.reach, out.data_ptr(), block.data_ptr(),
            n, features.count, inputs, rows, chunk, pitch,
        )  # fmt: skip
        return out

    def backward(
        self, g: Tensor, x: Tensor, tensors: list[Tensor], features: Features, wanted: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of x ``[N, I]``, and of the tensors if they are ``wanted``."""
        n, inputs = x.shape
        count, profiles = features.count, isinstance(features.form, Profiles)
        dx = torch.empty_like(x)
        rows, chunk, pitch = _blocks(inputs)
        held = _by_lane(tensors, features, rows, pitch)
        block = torch.empty(2 * count, LANES)
        size = (2, count, pitch) if profiles else (3, count - 1)
        sums = torch.zeros(size if wanted else 0, dtype=torch.float64)
        near = torch.zeros(size if wanted and profiles else 0)
        self._backward(
            g.data_ptr(), x.data_ptr(), _table(held, features), *features.reach, dx.data_ptr(),
            near.data_ptr() or None, sums.data_ptr() or None, block.data_ptr(), n, count, inputs, rows, chunk, pitch,
        )  # fmt: skip
        if not wanted:
            return dx, []
        if profiles:
            by_row = sums[..., : rows * inputs].view(2, count, rows, inputs)
            return dx, list(by_row.sum(2).float().unbind())
        return dx, [sums.float()]


def _blocks(inputs: int) -> tuple[int, int, int]:
    """Rows taken together, lanes of a block (as even as can be for wide tensors, in whole vectors), and lanes with
    those that fill up the last vector."""
    if inputs < _NARROW:
        rows = LANES // inputs
        return rows, rows * inputs, -(-rows * inputs // _VECTOR) * _VECTOR
    n_blocks = -(-inputs // LANES)
    return 1, min(LANES, -(-inputs // n_blocks // _VECTOR) * _VECTOR), inputs


def _by_lane(tensors: list[Tensor], features: Features, rows: int, pitch: int) -> list[Tensor]:
    """Tensors of one number per input, repeated for the rows taken together; 1 where a vector is filled up."""
    if rows == 1 or not isinstance(features.form, Profiles | Pieces):
        return tensors
    found: list[Tensor] = []
    for t in tensors:
        full = t.new_ones(*t.shape[:-1], pitch)
        full[..., : rows * t.shape[-1]] = t.repeat(*[1] * (t.dim() - 1), rows)
        found.append(full)
    return found


def _table(tensors: list[Tensor], features: Features) -> ctypes.Array[ctypes.c_void_p]:
    """Addresses of two tensors and of the numbers."""
    addresses = [t.data_ptr() for t in tensors]
    return (ctypes.c_void_p * 3)(
        *addresses, *[None] * (2 - len(addresses)), ctypes.addressof(_numbers(features.numbers))
    )


@cache
def _numbers(numbers: tuple[float, ...]) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * max(1, len(numbers)))(*numbers)


def kernel(features: Features) -> CFeatures:
    """The one of this form in this process, for any number of functions. Raises: KernelError."""
    return _kernel(replace(features, count=0, reach=(0.0, 0.0), numbers=()))


@cache
def _kernel(features: Features) -> CFeatures:
    return CFeatures(features)

"""Families of functions as generated C for the CPU: float32, one thread, equal bits for equal input.

Forward writes all functions of every element in one pass, in the layout of the matrix product that follows; backward
computes them again from x. One library serves all numbers of functions and inputs of a form.
"""

import ctypes
from functools import cache

import torch
from torch import Tensor

from layersearch.kernels.codegen._compile import library
from layersearch.kernels.features._c_text import LANES, c_text
from layersearch.kernels.features.form import Features, Form, Profiles

__all__ = ["CFeatures", "kernel"]

_EMITTER = "features/4"
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
        self._forward.argtypes = [pointer, pointer, number, number, *[pointer] * 3, *[size] * 6]
        self._backward.argtypes = [pointer, pointer, pointer, number, number, *[pointer] * 6, *[size] * 6]
        self._forward.restype = self._backward.restype = None

    def forward(self, x: Tensor, tensors: list[Tensor], features: Features) -> Tensor:
        """``[N, I] -> [N, K, I]``."""
        n, inputs = x.shape
        count = features.count
        out = x.new_empty(n, count, inputs)
        rows, chunk, pitch = _blocks(inputs)
        block = x.new_empty(count * (LANES + 2 * pitch) if rows > 1 else 0)
        at = block.data_ptr()
        self._forward(
            x.data_ptr(), _table(tensors, features), *features.reach, out.data_ptr(), at, at + 4 * count * LANES,
            n, count, inputs, rows, chunk, pitch,
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
        block = x.new_empty(2 * count * (LANES + (pitch if rows > 1 else 0)))
        found, near, sums = None, None, None
        if wanted:
            found = x.new_empty((2, count, inputs) if profiles else (3, count - 1))
            n_sums = 2 * count * pitch if profiles else 3 * (count - 1)
            near = x.new_empty(n_sums) if profiles else None
            sums = x.new_empty(n_sums, dtype=torch.float64)
        at = block.data_ptr()
        self._backward(
            g.data_ptr(), x.data_ptr(), _table(tensors, features), *features.reach, dx.data_ptr(), _address(found),
            _address(near), _address(sums), at, at + 8 * count * LANES, n, count, inputs, rows, chunk, pitch,
        )  # fmt: skip
        if found is None:
            return dx, []
        return dx, list(found.unbind()) if profiles else [found]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _blocks(inputs: int) -> tuple[int, int, int]:
    """Rows taken together, lanes of a block (as even as can be for wide tensors, in whole vectors), and lanes with
    those that fill up the last vector."""
    if inputs < _NARROW:
        rows = LANES // inputs
        return rows, rows * inputs, -(-rows * inputs // _VECTOR) * _VECTOR
    n_blocks = -(-inputs // LANES)
    return 1, min(LANES, -(-inputs // n_blocks // _VECTOR) * _VECTOR), inputs


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
    return _kernel(features.form)


@cache
def _kernel(form: Form) -> CFeatures:
    return CFeatures(Features(form, count=0, reach=(0.0, 0.0)))

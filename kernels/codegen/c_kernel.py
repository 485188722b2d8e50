"""Generated C at work: the functions of one library, called on tensors."""

import ctypes
import functools
import os
import struct
import tempfile
import weakref
from _ctypes import dlclose
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from layersearch.errors import KernelError
from layersearch.kernels.codegen._compile import build, find_compiler, library
from layersearch.kernels.codegen.c import CALL, EMITTER, LAYOUTS, c_source
from layersearch.kernels.codegen.program import Program

__all__ = ["CKernel", "build_seconds"]


class CKernel:
    """The programs of a layer, built or taken from the cache. Raises: KernelError if they cannot be built.

    No Python lock is held while a program runs; calls from several threads are safe. The library is unloaded with the
    last reference to the kernel: a worker of a search sees thousands of them.
    """

    def __init__(self, programs: Mapping[str, Program]) -> None:
        loaded = library(c_source(programs), EMITTER)
        weakref.finalize(self, dlclose, loaded._handle).atexit = False
        self._functions = {}
        for name in programs:
            for layout in LAYOUTS:
                function = getattr(loaded, f"{name}_{layout}")
                function.argtypes, function.restype = [ctypes.c_char_p], ctypes.c_int
                self._functions[name, layout] = function
        self._unmoved = {name: (0,) * len(program.tracked) for name, program in programs.items()}

    def run(
        self,
        name: str,
        layout: str,
        groups: int,
        x: Tensor,
        g: Tensor | None,
        inputs: Sequence[Tensor],
        given: Tensor | None,
        out: Tensor,
        results: Tensor,
        running: Sequence[Tensor] = (),
        momentum: float = 0.0,
    ) -> bool:
        """Runs a program.

        Args:
            layout: ``nchw`` or ``nhwc``: how ``x``, ``g`` and ``out`` ``[N, C, H, W]`` lie in memory, without gaps.
            inputs: parameters and buffers, contiguous; every tensor is float32.
            given, results: flat, as the program's layouts say.
            running: buffers to be moved by ``momentum`` towards the tracked results, each as large as its result.
        Returns: whether they are moved; none is if one has gaps, or is not to be changed outside inference mode.
        Raises: RuntimeError if a tensor has no memory of its own, as those of ``FakeTensorMode`` or a ``DTensor``.
        """
        n, channels, height, width = x.shape
        outside = not torch.is_inference_mode_enabled()
        moved = [t.data_ptr() for t in running if t.is_contiguous() and not (outside and t.is_inference())]
        moves = len(moved) == len(running)
        read = [t.data_ptr() for t in inputs]
        if 0 in read or not x.data_ptr() or not out.data_ptr() or (g is not None and not g.data_ptr()):
            raise RuntimeError("a compiled layer needs tensors with memory of their own; use the lowering 'torch'")
        addresses = [*(moved if moves and moved else self._unmoved[name]), *read]
        block = _block(len(addresses)).pack(
            x.data_ptr(),
            0 if g is None else g.data_ptr(),
            0 if given is None else given.data_ptr(),
            out.data_ptr(),
            results.data_ptr(),
            n,
            channels,
            height * width,
            groups,
            torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            momentum,
            *addresses,
        )
        if self._functions[name, layout](block):
            raise MemoryError(f"no memory for the small values of a layer of shape {tuple(x.shape)}")
        if moves:
            for t in running:
                torch.autograd.graph.increment_version(t)
        return moves


@functools.cache
def _block(n_pointers: int) -> struct.Struct:
    return struct.Struct(f"{CALL}{n_pointers}P")


def build_seconds(programs: Mapping[str, Program]) -> float:
    """CPU time of the compiler for these programs, built where no cache is. Raises: KernelError."""
    compiler = find_compiler()
    if isinstance(compiler, str):
        raise KernelError(compiler)
    source = c_source(programs)
    before = os.times()
    with tempfile.TemporaryDirectory(prefix="layersearch-build-") as folder:
        build(source, EMITTER, compiler, Path(folder))
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system

"""Generated C at work: the functions of one library, called on memory addresses."""

import ctypes
import os
import tempfile
import weakref
from _ctypes import dlclose
from collections.abc import Mapping, Sequence
from pathlib import Path

from layersearch.errors import KernelError
from layersearch.kernels.codegen._compile import build, find_compiler, library
from layersearch.kernels.codegen.c import EMITTER, LAYOUTS, c_source
from layersearch.kernels.codegen.program import Program

__all__ = ["CKernel", "build_seconds"]

_ARGUMENTS = [ctypes.c_void_p] * 7 + [ctypes.c_long] * 4


class CKernel:
    """The programs of a layer, built or taken from the cache. Raises: KernelError if they cannot be built.

    No Python lock is held while a program runs; calls from several threads are safe. The library is unloaded with the
    last reference to the kernel: a worker of a search sees thousands of them.
    """

    def __init__(self, programs: Mapping[str, Program]) -> None:
        source = c_source(programs)
        self._work = source.work
        loaded = library(source.text, EMITTER)
        weakref.finalize(self, dlclose, loaded._handle).atexit = False
        self._functions = {}
        for name in programs:
            for layout in LAYOUTS:
                function = getattr(loaded, f"{name}_{layout}")
                function.argtypes, function.restype = _ARGUMENTS, None
                self._functions[name, layout] = function

    def workspace(self, name: str, n: int, channels: int) -> int:
        """Number of floats of workspace that program ``name`` needs."""
        return self._work[name].size(n, channels)

    def run(
        self,
        name: str,
        layout: str,
        sizes: tuple[int, int, int, int],
        inputs: Sequence[int],
        *,
        x: int,
        g: int,
        given: int,
        out: int,
        results: int,
        work: int,
    ) -> None:
        """Runs a program; all arguments but ``sizes`` (N, C, H·W, groups) are addresses of float32 memory."""
        table = (ctypes.c_void_p * len(inputs))(*inputs)
        self._functions[name, layout](x, g, table, given, out, results, work, *sizes)


def build_seconds(programs: Mapping[str, Program]) -> float:
    """CPU time of the compiler for these programs, built where no cache is. Raises: KernelError."""
    compiler = find_compiler()
    if isinstance(compiler, str):
        raise KernelError(compiler)
    source = c_source(programs).text
    before = os.times()
    with tempfile.TemporaryDirectory(prefix="layersearch-build-") as folder:
        build(source, EMITTER, compiler, Path(folder))
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system

"""Turns generated Triton into functions that can be launched or compiled, and finds Triton at all."""

import functools
import hashlib
import importlib.util
import linecache
import os
import weakref
from typing import Any

from layersearch.kernels.codegen.triton import Kernel

__all__ = ["interprets", "loaded", "why_no_triton"]


def why_no_triton() -> str | None:
    """Why Triton cannot be imported, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install 'layersearch[gpu]'"
    return None


def interprets() -> bool:
    """Whether Triton runs kernels by its interpreter, on the CPU: TRITON_INTERPRET, set before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


class _Loaded:
    """A function whose source Python can look up for as long as it is here, without a file."""

    def __init__(self, kernel: Kernel) -> None:
        filename = f"<layersearch kernel {hashlib.sha256(kernel.text.encode()).hexdigest()[:32]}>"
        lines = kernel.text.splitlines(keepends=True)
        linecache.cache[filename] = (len(kernel.text), None, lines, filename)
        weakref.finalize(self, linecache.cache.pop, filename, None)
        namespace: dict[str, Any] = {"__name__": "layersearch.generated"}
        exec(compile(kernel.text, filename, "exec"), namespace)  # written by the emitter from instructions and numbers
        self.function: Any = namespace[kernel.name]


@functools.lru_cache(maxsize=4096)
def _load(kernel: Kernel) -> _Loaded:
    return _Loaded(kernel)


def loaded(kernel: Kernel) -> Any:
    """Triton's function of a kernel; equal kernels of any candidates share it, and what was compiled for it."""
    return _load(kernel).function

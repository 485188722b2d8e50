"""One readable Python file that needs torch, and uses triton where it is: a layer with fused kernels for GPUs.

The file is checked twice: what it computes without kernels, in float64, like the python format; and its kernels, by
Triton's interpreter in a process without layersearch, forward and backward. No GPU is used.
"""

import linecache
from pathlib import Path
from typing import Any

from layersearch.kernels.codegen._triton_load import why_no_triton
from layersearch.search.export._triton_check import check_kernels
from layersearch.search.export._triton_text import triton_text
from layersearch.search.export._written import names_of
from layersearch.search.export.base import FORMATS, Format, Subject
from layersearch.search.export.python import check_class

__all__ = ["unchecked", "write"]


def write(subject: Subject, path: Path) -> float:
    """Writes the file and checks both ways to run it; the kernels only where triton is installed."""
    path.write_text(triton_text(subject), encoding="utf-8")
    worst = check_class(subject, _loaded(path))
    return worst if why_no_triton() is not None else max(worst, check_kernels(subject, path))


def unchecked() -> str | None:
    """What ``write`` leaves out here."""
    reason = why_no_triton()
    return f"its kernels ({reason})" if reason else "its kernels on a GPU (they were interpreted on the CPU)"


def _loaded(path: Path) -> Any:
    """The class of a file. Triton reads the source of kernels when they are declared, so it must be found."""
    text = path.read_text(encoding="utf-8")
    name = f"<exported {path.name}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    try:
        return names_of(text, name, "Layer")["Layer"]
    finally:
        linecache.cache.pop(name, None)


FORMATS.add("triton", Format("triton", ".py", write, unchecked))

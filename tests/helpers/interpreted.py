"""Kernels by Triton's interpreter: the variable must be set before Triton is imported, so a file runs apart."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from layersearch.kernels.codegen._triton_load import interprets, why_no_triton
from layersearch.primitives.layers._lowered import reason_against

__all__ = ["INTERPRETS", "each_kernel_way", "interpreted", "once_interpreted"]

INTERPRETS = interprets()
_ROOT = Path(__file__).parents[2]


def interpreted(test_file: str) -> tuple[int, float]:
    """Runs the tests of a file, all of which must pass: how many there were, and the CPU seconds they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test_file]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=_ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    return int(passed[1]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def once_interpreted(test: Callable[[], None]) -> Callable[[], None]:
    """Marks the test that calls ``interpreted``: slow, not within itself, and not without Triton."""
    for mark in (
        pytest.mark.slow,
        pytest.mark.skipif(INTERPRETS, reason="these tests are being interpreted"),
        pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton())),
    ):
        test = mark(test)
    return test


def each_kernel_way(*plain: str) -> pytest.MarkDecorator:
    """Parametrises ``way``: a lowering with own kernels, or one of ``plain``, and a device that runs it."""
    if INTERPRETS:
        return pytest.mark.parametrize("way", [pytest.param(("triton", "cpu"), id="triton-interpreted")])
    no_c = pytest.mark.skipif(reason_against("c") is not None, reason=f"lowering c: {reason_against('c')}")
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ways = [
        *(pytest.param((name, "cpu"), id=name) for name in plain),
        pytest.param(("c", "cpu"), id="c", marks=[no_c]),
        pytest.param(("triton", "cuda"), id="triton", marks=[pytest.mark.gpu, no_gpu]),
    ]
    return pytest.mark.parametrize("way", ways)

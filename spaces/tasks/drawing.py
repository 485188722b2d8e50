"""First weights from a seed: layers draw them from torch's own generator, which all threads share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]

_drawing = threading.Lock()
"""Trainings may run in several threads of a process, of one space or of two."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's own generator of the CPU at ``seed``, and afterwards as it was; one thread at a time is inside."""
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

"""Dropout whose draws are those of a given generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Dropout", "drawing_from"]


class Dropout(nn.Dropout):
    """``nn.Dropout``, which draws from torch's own generator, one for all threads of a process, unless it is given one.

    On the CPU a generator gives the bits of torch's own at the same seed.

    Attributes:
        generator: on the device of the input; None for torch's own. Not part of the state.
    """

    generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.generator is None or not self.training or not self.p:
            return super().forward(x)
        kept = 1 - self.p
        return x * torch.empty_like(x).bernoulli_(kept, generator=self.generator).div_(kept)


@contextmanager
def drawing_from(generator: torch.Generator, module: nn.Module) -> Iterator[None]:
    """Within it every ``Dropout`` of ``module`` draws from ``generator``, in the order in which they are called."""
    layers = [layer for layer in module.modules() if isinstance(layer, Dropout)]
    for layer in layers:
        layer.generator = generator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None

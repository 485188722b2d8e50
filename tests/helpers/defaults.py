"""Torch's default dtype and device as a user may set them: nothing that is computed from tensors may depend on them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

__all__ = ["defaults", "each_default"]


@contextmanager
def defaults(dtype: torch.dtype = torch.float32, device: str | None = None) -> Iterator[None]:
    """Sets both for the block."""
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def each_default(test: Callable[..., None]) -> Callable[..., None]:
    """Parametrises ``dtype`` and ``device``: defaults wider and narrower than float32, and one without memory."""
    choices = [(torch.float64, None), (torch.bfloat16, None), (torch.float32, "meta")]
    return pytest.mark.parametrize(("dtype", "device"), choices, ids=["float64", "bfloat16", "meta"])(test)

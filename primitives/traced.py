"""Functions that torch.compile calls once instead of tracing them."""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["constant"]

F = TypeVar("F", bound=Callable[..., Any])


def constant(function: F) -> F:
    """What ``function`` says while a model is traced is kept for good.

    As ``torch.compiler.assume_constant_result``, which imports all of torch's compiler to set this mark.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function

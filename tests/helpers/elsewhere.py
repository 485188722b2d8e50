"""A device that is not the CPU, for machines that have no other: what is written for a GPU is run on it, with numbers.

Its tensors say that they lie on ``meta``, the one device beside the CPU on which every torch can differentiate, and
hold their numbers in a tensor of the CPU. As on a GPU, an operator refuses tensors of both devices, unless it copies
from one to the other or those of the CPU are numbers (of no axes). Unlike there, indices of the CPU are refused, too:
they would be copied at each use, and waited for.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from layersearch.primitives.ctr import lookup
from layersearch.primitives.gates import base, row_adam

__all__ = ["ELSEWHERE", "elsewhere"]

ELSEWHERE = torch.device("meta")

_COPIES = ("copy_", "_to_copy")
_WAITED_FOR = ("_coalesce", "_local_scalar_dense", "_unique2", "masked_select", "nonzero", "unique_dim")
"""Operators whose result has as many numbers as the values of their input say, or is a number of the host."""


class _There(Tensor):
    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "_There":
        where = {} if held.is_sparse else {"strides": held.stride(), "storage_offset": held.storage_offset()}
        found = Tensor._make_wrapper_subclass(
            cls, held.shape, dtype=held.dtype, device=ELSEWHERE, layout=held.layout, **where
        )
        found.held = held
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = self.detach().clone()
        return torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy

    def __repr__(self) -> str:
        return f"_There({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} of a tensor that is elsewhere was called outside of elsewhere()")


class _Device(TorchDispatchMode):
    """Runs what concerns ``_There`` on what it holds, and counts by name the operators that have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = [x for x in tensors if isinstance(x, _There)]
        device = kwargs.get("device")
        is_there = bool(there) if device is None else torch.device(device) == ELSEWHERE
        if device is not None:
            kwargs["device"] = "cpu"
        if there and name not in _COPIES and any(x.dim() for x in tensors if not isinstance(x, _There)):
            raise RuntimeError(f"expected all tensors to be on the same device, got two in {func}")
        if there and (name in _WAITED_FOR or not is_there or _masks(name, args)):
            self.waits[name] += 1
        found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if not is_there:
            return found
        if name == "copy_":
            return args[0]
        found = tree_map(lambda x: _There(x) if isinstance(x, Tensor) else x, found)
        return return_and_correct_aliasing(func, args, kwargs, found) if there else found


def _held(x: Any) -> Any:
    return x.held if isinstance(x, _There) else x


def _masks(name: str, args: Any) -> bool:
    """Whether an index is a mask, of which it has to be found how many numbers it takes."""
    return name in ("index", "index_put", "index_put_") and any(
        isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1]
    )


@contextmanager
def elsewhere() -> Iterator[Counter[str]]:
    """Within it ``ELSEWHERE`` is such a device. Gives what had to be waited for there, counted by operator.

    Lookups look as they do for tensors of torch's own class: those that are others go op by op, with dense gradients.
    """
    kept = (base.sizes_on, row_adam._powers)
    try:
        with patch.object(lookup, "is_eager", lambda x: True), _Device() as device:
            yield device.waits
    finally:
        for function in kept:
            function.cache_clear()

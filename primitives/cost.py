"""What a module costs where it is run: time of a forward and backward pass, and memory at its peak.

Times are ratios to a reference that is measured in turns with it, so that a busy machine, its clock and its libraries
weigh on both alike.
"""

import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["latency_ratio", "peak_bytes", "time_ratio"]

_WARM_UPS = 3
_PAIRS = 11
_FEWEST_PAIRS = 5
_ENOUGH_S = 3.0  # of a slow module fewer pairs tell as much


def latency_ratio(module: nn.Module, reference: nn.Module, x: Tensor) -> float:
    """Seconds of a forward and backward pass of ``module`` on ``x``, in those of ``reference``; see ``time_ratio``.

    Gradients of ``x`` and of all parameters are computed, and dropped. Both modules are run as they are, in training or
    in eval mode; buffers such as running moments move.
    """
    x = x.detach().requires_grad_()
    return time_ratio(_pass_of(module, x), _pass_of(reference, x), x.device)


def time_ratio(once: Callable[[], object], reference: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call of ``once`` takes, in those of ``reference``.

    The median over 11 pairs of calls, one of each (5 at least, if they take more than 3 s). On the CPU the time of
    this thread is taken, which other processes do not add to; on CUDA that between two events of the current stream.
    """
    for _ in range(_WARM_UPS):
        reference()
        once()
    seconds = _seconds_cuda if device.type == "cuda" else _seconds_cpu
    ratios: list[float] = []
    begin = time.monotonic()
    while len(ratios) < _PAIRS and (len(ratios) < _FEWEST_PAIRS or time.monotonic() - begin < _ENOUGH_S):
        first, second = seconds(reference), seconds(once)
        ratios.append(second / first)
    return statistics.median(ratios)


def peak_bytes(module: nn.Module, x: Tensor) -> int:
    """Bytes at the peak of a forward and backward pass: what is saved for it, results, gradients and temporaries.

    Counted are the tensors that operators return while they are alive, on any device, so the number is the same each
    time. ``x``, parameters, buffers and the gradient that comes in are not counted, nor is what an operator of torch
    takes and gives back by itself, such as the workspace of a convolution.
    """
    x = x.detach().requires_grad_()
    gradient = torch.ones_like(module(x))
    live = _LiveBytes([x, gradient, *module.parameters(), *module.buffers()])
    with live:
        y = module(x)
        gradients = torch.autograd.grad(y, [x, *module.parameters()], gradient, allow_unused=True)
    del y, gradients
    return live.peak


def _pass_of(module: nn.Module, x: Tensor) -> Callable[[], None]:
    gradient = torch.ones_like(module(x))
    wanted = [x, *module.parameters()]

    def once() -> None:
        torch.autograd.grad(module(x), wanted, gradient, allow_unused=True)

    return once


def _seconds_cpu(once: Callable[[], object]) -> float:
    begin = time.thread_time()
    once()
    return time.thread_time() - begin


def _seconds_cuda(once: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    once()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that come into being while it is on, and are alive; ``peak`` is the most there were.

    Args:
        known: tensors that are not counted.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        # A storage keeps its one Python object for as long as it lives, views of it included.
        self._storages: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._storages[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, Tensor):
                self._note(result.untyped_storage())
        return results

    def _note(self, storage: torch.UntypedStorage) -> None:
        n_bytes = storage.nbytes()
        if storage in self._storages or not n_bytes:
            return
        self._storages[storage] = True
        self._now += n_bytes
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, n_bytes)

    def _gone(self, n_bytes: int) -> None:
        self._now -= n_bytes

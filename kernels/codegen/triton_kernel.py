"""Generated Triton at work: the launches of a layer's programs on given tensors."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from layersearch.errors import KernelError
from layersearch.kernels.codegen._triton_load import interprets, loaded
from layersearch.kernels.codegen._triton_shapes import (
    Config,
    Launch,
    Sizes,
    candidates,
    class_key,
    default_config,
    is_addressable,
    planned,
    work_floats,
)
from layersearch.kernels.codegen._triton_tune import is_tuning, median_ms, tuned
from layersearch.kernels.codegen._triton_words import TENSORS
from layersearch.kernels.codegen.program import Program
from layersearch.kernels.codegen.triton import Kernel, TritonSource, triton_source

__all__ = ["TritonKernel"]


class _Prepared:
    """Launches of one program at one set of sizes: functions, with the names of the tensors that each takes."""

    def __init__(self, source: TritonSource, sizes: Sizes, launches: list[Launch]) -> None:
        self.work_floats = work_floats(source, sizes, launches)
        self.calls = [(_bound(made), _tensors(made.kernel)) for made in launches]
        self.has_run = False


class TritonKernel:
    """The programs of a layer. Kernels are compiled, or found in Triton's cache, at the first run of a class of shapes.

    Programs run on the current stream of the tensors' device and never wait for it; what they need is allocated by
    torch, so that they can be captured in a CUDA graph once they have run.
    """

    def __init__(self, programs: Mapping[str, Program]) -> None:
        self._sources = triton_source(programs)
        self._prepared: dict[tuple[Any, ...], _Prepared] = {}

    def run(
        self,
        name: str,
        layout: str,
        groups: int,
        x: Tensor,
        g: Tensor | None,
        inputs: Sequence[Tensor],
        given: Tensor | None,
        out: Tensor,
        results: Tensor,
        running: Sequence[Tensor] = (),
        momentum: float = 0.0,
    ) -> bool:
        """Runs a program.

        Args:
            layout: ``nchw`` or ``nhwc``: how ``x``, ``g`` and ``out`` ``[N, C, H, W]`` lie in memory, without gaps.
            inputs: parameters and buffers, contiguous; every tensor may be float32, bfloat16 or float16.
            given, results: flat float32, as the program's layouts say.
            running, momentum: as of ``CKernel.run``; left to the caller.
        Returns: whether there was nothing to move.
        Raises: KernelError if a kernel cannot be compiled.
        """
        key = (name, layout, groups, x.shape, x.dtype, x.device)
        tensors = dict(zip(TENSORS, (x, g, out, given, results), strict=False))
        tensors |= {f"p{k}_ptr": t for k, t in enumerate(inputs)}
        prepared = self._prepared.get(key)
        elsewhere = x.device.type == "cuda" and x.device.index != torch.cuda.current_device()
        try:
            with torch.cuda.device(x.device) if elsewhere else nullcontext():
                if prepared is None:
                    prepared = self._prepared[key] = self._prepare(self._sources[name], layout, groups, tensors)
                tensors["work_ptr"] = torch.empty(prepared.work_floats, dtype=torch.float32, device=x.device)
                for call, names in prepared.calls:
                    call(*[tensors[word] for word in names])
            prepared.has_run = True
            return not running
        except Exception as error:
            if prepared is not None and prepared.has_run:
                raise
            raise KernelError(f"a Triton kernel must compile and start, got {type(error).__name__}: {error}") from error

    def _prepare(self, source: TritonSource, layout: str, groups: int, tensors: dict[str, Tensor | None]) -> _Prepared:
        x = tensors["x_ptr"]
        assert x is not None
        n, channels, height, width = x.shape
        sizes = Sizes(n, channels, height * width, channels // groups, x.element_size(), layout == "nhwc")
        if not is_addressable(sizes):
            raise ValueError(f"planes and samples must count below 2^31, got {tuple(x.shape)}")
        known = tuned("interpreter" if interprets() else torch.cuda.get_device_name(x.device))

        def config(kernel: Kernel) -> Config:
            found = known.get(class_key(kernel, source, sizes))
            if (
                found is None
                and is_tuning()
                and x.device.type == "cuda"
                and not torch.cuda.is_current_stream_capturing()
            ):
                found = _measured(kernel, source, sizes, tensors)
                known.put(class_key(kernel, source, sizes), found)
            return found or default_config(kernel, source, sizes)

        return _Prepared(source, sizes, planned(source, sizes, config))


def _tensors(kernel: Kernel) -> tuple[str, ...]:
    return tuple(word for word in kernel.arguments if word.endswith("_ptr"))


def _bound(made: Launch) -> Callable[..., object]:
    """A launch that lacks its tensors alone. Fused multiply-adds are asked for: Triton's default differs by version."""
    return functools.partial(
        loaded(made.kernel).run,
        grid=made.grid,
        warmup=False,
        num_warps=made.warps,
        enable_fp_fusion=True,
        **made.numbers,
    )


def _measured(kernel: Kernel, source: TritonSource, sizes: Sizes, tensors: Mapping[str, Tensor | None]) -> Config:
    """The fastest of the candidates. Kernels only write what the real run writes again."""
    options = candidates(kernel, source, sizes)
    if len(options) == 1:
        return options[0]
    x = tensors["x_ptr"]
    assert x is not None
    times: list[float] = []
    for option in options:
        made = next(m for m in planned(source, sizes, lambda _: option) if m.kernel is kernel)  # noqa: B023
        work = torch.empty(work_floats(source, sizes, [made]), dtype=torch.float32, device=x.device)
        held = [{**tensors, "work_ptr": work}[word] for word in _tensors(kernel)]
        times.append(median_ms(functools.partial(_bound(made), *held)))
    return options[times.index(min(times))]

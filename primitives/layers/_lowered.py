"""Which lowering runs a layer's own kernels for the tensor at hand: the words are those of ``primitives.lowering``."""

import torch
from torch import Tensor, nn

from layersearch.primitives.lowering.base import say_once
from layersearch.primitives.registry import unknown_name
from layersearch.primitives.traced import constant

__all__ = ["CHOICES", "chosen", "is_eager", "lowering_name", "reason_against", "set_lowering"]

CHOICES = ("auto", "c", "torch", "triton")


def lowering_name(name: str) -> str:
    """``name`` if it is one of ``CHOICES``; says once if it was named and this machine cannot run it.

    Raises: UnknownNameError.
    """
    if name not in CHOICES:
        raise unknown_name("lowering", name, list(CHOICES))
    if name in ("c", "triton") and (reason := reason_against(name)) is not None:
        say_once(reason)
    return name


def set_lowering(module: nn.Module, name: str) -> None:
    """Has every layer in ``module`` run by the lowering ``name``. Raises: UnknownNameError."""
    name = lowering_name(name)
    for part in module.modules():
        if isinstance(getattr(part, "lowering", None), str):
            part.lowering = name  # type: ignore[assignment]


@constant
def reason_against(name: str) -> str | None:
    """Why kernels of that kind cannot be run on this machine, or None."""
    if name == "c":
        from layersearch.primitives.lowering.c import why_unavailable as why
    else:
        from layersearch.primitives.lowering.triton import why_unavailable as why
    return why()


def chosen(lowering: str, x: Tensor) -> str:
    """``c``, ``triton`` or ``torch`` for inputs like ``x``: what was named if it runs there, else ``torch``.

    ``auto`` is C on the CPU and Triton on CUDA, where they can be had. Other devices, tensors that are traced or
    transformed by functorch and float64 take ``torch``.
    """
    if lowering == "torch" or x.numel() == 0 or x.dtype is torch.float64 or _is_transformed():
        return "torch"
    name = {"cpu": "c", "cuda": "triton"}.get(x.device.type, "torch") if lowering == "auto" else lowering
    if name == "torch" or reason_against(name) is not None or x.device.type != _device(name):
        return "torch"
    return name


def _is_transformed() -> bool:
    """Whether functorch looks on, which kernels cannot answer."""
    return not torch.compiler.is_compiling() and bool(torch._C._are_functorch_transforms_active())


@constant
def _device(name: str) -> str:
    """Type of the device that a lowering runs on; Triton's interpreter runs on the CPU."""
    from layersearch.kernels.codegen._triton_load import interprets

    return "cuda" if name == "triton" and not interprets() else "cpu"


def is_eager(x: Tensor) -> bool:
    """Whether kernels may be called without torch's dispatcher, which costs as much as a small layer."""
    return type(x) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()

"""Grouped quotients of polynomials by kernels: custom ops, autograd around them, and what they leave to torch."""

import functools
from typing import Any

import torch
from torch import Tensor

from layersearch.errors import KernelError
from layersearch.kernels.quotient.shape import Degrees, Extents
from layersearch.primitives.bases.rational import group_rational, rational_reach
from layersearch.primitives.layers._lowered import chosen, is_eager
from layersearch.primitives.lowering.base import say_once
from layersearch.primitives.traced import constant

__all__ = ["quotient"]

_HALF = (torch.bfloat16, torch.float16)


def quotient(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int = -1, lowering: str = "auto") -> Tensor:
    """``group_rational`` of ``x`` clamped to ``rational_reach``, with the channels on axis ``dim``; dtype of ``x``.

    Half precision is computed in float32 and rounded once. What no kernel covers is done by torch, double backward
    included.
    """
    by = chosen(lowering, x)
    held = all(t.dtype in (torch.float32, *_HALF) and t.device == x.device for t in (numerator, denominator))
    if by == "torch" or not held or x.shape[dim] % denominator.shape[0]:
        return _plain(x, numerator, denominator, dim)
    if (why := _refusal(by, numerator.shape[0] - 1, denominator.shape[1])) is not None:
        if lowering != "auto":
            raise KernelError(why)
        say_once(why)
        return _plain(x, numerator, denominator, dim)
    wide = x.float() if by == "c" else x
    channels = dim % x.dim()
    if not is_eager(x):
        y: Tensor = _forward_op(wide, numerator, denominator, channels, by)
    elif torch.is_grad_enabled():
        y = _Eager.apply(wide, numerator, denominator, channels, by)  # type: ignore[no-untyped-call]
    else:
        y = _forward(wide, numerator, denominator, channels, by)
    return y.to(x.dtype)


def _plain(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int) -> Tensor:
    wide = x.float() if x.dtype in _HALF else x
    reach = rational_reach(numerator.shape[0] - 1)
    u = wide.clamp(-reach, reach).movedim(dim, -1)
    y = group_rational(u, numerator.to(wide.dtype), denominator.to(wide.dtype))
    return y.movedim(-1, dim).to(x.dtype)


@constant
def _refusal(by: str, m: int, n: int) -> str | None:
    """Why there are no kernels of these degrees, or None; they are built at first use."""
    made = _built(by, m, n)
    return made if isinstance(made, str) else None


@functools.cache
def _built(by: str, m: int, n: int) -> Any:
    """The kernels of these degrees, or why there are none."""
    try:
        if by == "c":
            from layersearch.kernels.quotient.c import CQuotient

            return CQuotient(Degrees(m, n))
        from layersearch.kernels.quotient.triton import TritonQuotient

        return TritonQuotient(Degrees(m, n))
    except KernelError as error:
        return str(error)


def _kernel(by: str, numerator: Tensor, denominator: Tensor) -> Any:
    return _built(by, numerator.shape[0] - 1, denominator.shape[1])


def _laid_out(x: Tensor, dim: int, groups: int) -> tuple[Tensor, Extents]:
    """``x`` without gaps, and how its groups lie. Channels may be innermost in memory whatever ``dim`` is."""
    if dim != x.dim() - 1 and x.stride(dim) == 1 and x.movedim(dim, -1).is_contiguous():
        return x, Extents(x.numel() // x.shape[dim], groups, x.shape[dim] // groups)
    inner = x.shape[dim] // groups
    for size in x.shape[dim + 1 :]:
        inner *= size
    return x.contiguous(), Extents(x.numel() // (groups * inner), groups, inner)


def _like(g: Tensor, x: Tensor) -> Tensor:
    """``g`` as ``x`` lies in memory."""
    if g.stride() == x.stride():
        return g
    return torch.empty_strided(x.shape, x.stride(), dtype=g.dtype, device=g.device).copy_(g)


def _forward(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int, by: str) -> Tensor:
    x, extents = _laid_out(x, dim, denominator.shape[0])
    a, b = numerator.float().contiguous(), denominator.float().contiguous()
    y: Tensor = _kernel(by, numerator, denominator).forward(x, a, b, rational_reach(a.shape[0] - 1), extents)
    return y


def _backward(
    g: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int, by: str
) -> tuple[Tensor, Tensor, Tensor]:
    x, extents = _laid_out(x, dim, denominator.shape[0])
    a, b = numerator.float().contiguous(), denominator.float().contiguous()
    kernel = _kernel(by, numerator, denominator)
    dx, da, db = kernel.backward(_like(g, x), x, a, b, rational_reach(a.shape[0] - 1), extents)
    return dx, da.to(numerator.dtype), db.to(denominator.dtype)


class _Eager(torch.autograd.Function):
    """The kernels without the dispatcher; a backward pass that is to be differentiated again goes by torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int, by: str) -> Tensor:
        ctx.dim, ctx.by = dim, by
        ctx.save_for_backward(x, numerator, denominator)
        return _forward(x, numerator, denominator, dim, by)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        held = ctx.saved_tensors
        if not torch.is_grad_enabled():
            x, numerator, denominator = held
            return *_backward(g, x, numerator, denominator, ctx.dim, ctx.by), None, None
        wanted = [t if t.requires_grad else t.detach().requires_grad_() for t in held]
        grads = torch.autograd.grad(_plain(wanted[0], wanted[1], wanted[2], ctx.dim), wanted, g, create_graph=True)
        return *grads, None, None


_forward_op: Any = torch.library.custom_op("layersearch::quotient", _forward, mutates_args=())
_backward_op: Any = torch.library.custom_op("layersearch::quotient_backward", _backward, mutates_args=())


@_forward_op.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, numerator: Tensor, denominator: Tensor, dim: int, by: str) -> Tensor:
    return torch.empty_like(_laid_out(x, dim, denominator.shape[0])[0])


@_backward_op.register_fake  # type: ignore[untyped-decorator]
def _(g: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, dim: int, by: str) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(_laid_out(x, dim, denominator.shape[0])[0])
    return dx, torch.empty_like(numerator), torch.empty_like(denominator)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, str], output: Tensor) -> None:
    *held, ctx.dim, ctx.by = inputs
    ctx.save_for_backward(*held)


def _gradients(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward_op(g, *ctx.saved_tensors, ctx.dim, ctx.by), None, None


_forward_op.register_autograd(_gradients, setup_context=_save)

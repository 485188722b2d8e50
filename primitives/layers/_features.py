"""Features of a basis by kernels: custom ops, autograd around them, and what they leave to torch."""

import functools
from typing import Any

import torch
from torch import Tensor

from layersearch.errors import KernelError
from layersearch.kernels.features.form import Features, Pieces, Profiles
from layersearch.primitives.basis import Basis, State
from layersearch.primitives.layers._lowered import chosen, is_eager
from layersearch.primitives.lowering.base import say_once
from layersearch.primitives.traced import constant

__all__ = ["columns_by_kernel", "features_of", "fused", "known_basis", "named_basis", "state_names"]

_HALF = (torch.bfloat16, torch.float16)


def columns_by_kernel(basis: Basis, x: Tensor, state: State, lowering: str) -> Tensor | None:
    """``basis.columns(x, state)`` by generated C; None where torch is to do it."""
    if chosen(lowering, x) != "c" or not all(t.is_cpu and t.dtype in (torch.float32, *_HALF) for t in state.values()):
        return None
    key = known_basis(basis)
    if (why := _refusal(key)) is not None:
        if why and lowering != "auto":
            raise KernelError(why)
        if why:
            say_once(why)
        return None
    wide = x.float().reshape(-1, x.shape[-1]).contiguous()
    values = [t.float() for t in state.values()]
    features, tensors = fused(key, values, x.device)
    if isinstance(features.form, Pieces | Profiles) and any(t.shape[-1] != x.shape[-1] for t in tensors):
        return None  # C would read beyond them
    if is_eager(x):
        out: Tensor = _Eager.apply(wide, key, features, len(tensors), *tensors, *values)  # type: ignore[no-untyped-call]
    else:
        out = _forward_op(wide, tensors, key)
    return out.view(*x.shape[:-1], *out.shape[1:]).to(x.dtype)


@constant
def known_basis(basis: Basis) -> str:
    """A name for the basis, by which ops find it: they take no objects."""
    key = f"{type(basis).__module__} {basis!r}"
    _BASES.setdefault(key, basis)
    return key


_BASES: dict[str, Basis] = {}


def named_basis(key: str) -> Basis:
    """The basis of that name in this process."""
    return _BASES[key]


@constant
def _refusal(key: str) -> str | None:
    """None if there are kernels; else why they cannot be built, or nothing if the basis has none in this setting."""
    return _refused(key)


@functools.cache
def _refused(key: str) -> str | None:
    from layersearch.kernels.features.c import kernel

    basis = _BASES[key]
    found = basis.fused(basis.state(1), torch.device("cpu"))
    if found is None:
        return ""
    try:
        kernel(found[0])
    except KernelError as error:
        return str(error)
    return None


def fused(key: str, values: list[Tensor], device: torch.device) -> tuple[Features, list[Tensor]]:
    """What kernels take of the basis, with tensors in float32 without gaps, on the device of ``values``."""
    found = _BASES[key].fused(dict(zip(state_names(key), values, strict=True)), device)
    assert found is not None
    return found[0], [t.float().contiguous() for t in found[1]]


@functools.cache
def features_of(key: str) -> Features:
    """The features of a basis for which ``fused`` gives some."""
    found = _BASES[key].fused(_BASES[key].state(1), torch.device("cpu"))
    assert found is not None
    return found[0]


@constant
def state_names(key: str) -> tuple[str, ...]:
    """Names of the tensors of the basis, in order."""
    return _state_names(key)


@functools.cache
def _state_names(key: str) -> tuple[str, ...]:
    return tuple(_BASES[key].state(1))


def _kernel(features: Features) -> Any:
    from layersearch.kernels.features.c import kernel

    return kernel(features)


class _Eager(torch.autograd.Function):
    """The kernels without the dispatcher, a function of x and the tensors of the form.

    The state behind the tensors is an argument, too: a backward pass that is to be differentiated again goes by torch,
    from x and the state.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, key: str, features: Features, n_tensors: int, *held: Tensor) -> Tensor:
        ctx.key, ctx.features, ctx.n_tensors = key, features, n_tensors
        ctx.save_for_backward(x, *held)
        out: Tensor = _kernel(features).forward(x, list(held[:n_tensors]), features)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, *held = ctx.saved_tensors
        tensors, values = held[: ctx.n_tensors], held[ctx.n_tensors :]
        nothing: list[Tensor | None] = [None] * len(held)
        wanted = any(ctx.needs_input_grad[4:])
        if not torch.is_grad_enabled():
            dx, found = _kernel(ctx.features).backward(g.contiguous(), x, tensors, ctx.features, wanted)
            return dx, None, None, None, *(found + nothing[len(found) :])
        x, *values = (t if t.requires_grad else t.detach().requires_grad_() for t in (x, *values))
        y = _BASES[ctx.key].plain_columns(x, dict(zip(state_names(ctx.key), values, strict=True)))
        given = [x, *values] if wanted else [x]
        dx, *again = torch.autograd.grad(y, given, g, create_graph=True, allow_unused=True, materialize_grads=True)
        return dx, None, None, None, *nothing[: ctx.n_tensors], *(again or nothing[ctx.n_tensors :])


def _forward_impl(x: Tensor, tensors: list[Tensor], key: str) -> Tensor:
    features = features_of(key)
    out: Tensor = _kernel(features).forward(x, tensors, features)
    return out


def _backward_impl(g: Tensor, x: Tensor, tensors: list[Tensor], key: str, wanted: bool) -> tuple[Tensor, list[Tensor]]:
    """Gradients of x and, if they are ``wanted``, of the tensors."""
    features = features_of(key)
    dx, found = _kernel(features).backward(g.contiguous(), x, tensors, features, wanted)
    return dx, [t.clone() for t in found]  # what an op returns must not share memory


_forward_op: Any = torch.library.custom_op("layersearch::features", _forward_impl, mutates_args=())
_backward_op: Any = torch.library.custom_op("layersearch::features_backward", _backward_impl, mutates_args=())


@_forward_op.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, tensors: list[Tensor], key: str) -> Tensor:
    return x.new_empty(x.shape[0], _BASES[key].n_functions, x.shape[1])


@_backward_op.register_fake  # type: ignore[untyped-decorator]
def _(g: Tensor, x: Tensor, tensors: list[Tensor], key: str, wanted: bool) -> tuple[Tensor, list[Tensor]]:
    return torch.empty_like(x), [torch.empty_like(t) for t in tensors] if wanted else []


def _save(ctx: Any, inputs: tuple[Tensor, list[Tensor], str], output: Tensor) -> None:
    x, tensors, ctx.key = inputs
    ctx.wanted = any(t.requires_grad for t in tensors)
    ctx.save_for_backward(x, *tensors)


def _gradients(ctx: Any, g: Tensor) -> tuple[Tensor, list[Tensor | None], None]:
    x, *tensors = ctx.saved_tensors
    dx, gradients = _backward_op(g, x, tensors, ctx.key, ctx.wanted)
    return dx, gradients or [None] * len(tensors), None


_forward_op.register_autograd(_gradients, setup_context=_save)

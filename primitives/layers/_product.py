"""Features and their matrix product in one kernel: custom ops, autograd around them, and when they are worth it."""

import functools
from typing import Any

import torch
from torch import Tensor

from layersearch.kernels.features.form import Features, Recurrence
from layersearch.primitives.basis import Basis, State
from layersearch.primitives.layers._features import features_of, fused, known_basis, named_basis, state_names
from layersearch.primitives.layers._lowered import chosen, is_eager
from layersearch.primitives.traced import constant

__all__ = ["product_by_kernel"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_WIDEST = 512
"""``auto``: each block of outputs makes the features again, which at more of them costs more than storing them."""


def product_by_kernel(
    basis: Basis, u: Tensor, state: State, weight: Tensor, dtype: torch.dtype, lowering: str
) -> Tensor | None:
    """``sum_{k,i} weight[o, k, i] f_k(u_i)`` by Triton; None where features are to be stored.

    Args:
        u: mapped inputs, ``[..., I]``.
        weight: ``[O, K, I]``.
        dtype: of the products, unless autocast says otherwise.

    ``auto`` leaves float32 without TF32 to cuBLAS, which has no tensor cores to lose then, and wide layers, too.
    """
    if chosen(lowering, u) != "triton":
        return None
    if not all(t.dtype in _DTYPES and t.device == u.device for t in (weight, *state.values())):
        return None
    kind = u.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    if dtype not in _DTYPES:
        return None
    precision = _precision()
    if lowering == "auto" and (weight.shape[0] > _WIDEST or (dtype is torch.float32 and precision == "ieee")):
        return None
    key = known_basis(basis)
    if not _is_covered(key):
        return None
    flat, values = u.float().reshape(-1, u.shape[-1]).contiguous(), [t.float() for t in state.values()]
    held = weight.to(dtype)
    features, tensors = fused(key, values, u.device)
    if is_eager(u):
        y: Tensor = _Eager.apply(flat, held, key, features, precision, len(tensors), *tensors, *values)  # type: ignore[no-untyped-call]
    else:
        y = _forward_op(flat, held, tensors, key, precision)
    return y.view(*u.shape[:-1], -1)


@constant
def _precision() -> str:
    """Of float32 products, as torch is set."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@constant
def _is_covered(key: str) -> bool:
    return _covered(key)


@functools.cache
def _covered(key: str) -> bool:
    """Whether there are kernels: not for coefficients of a recurrence that are trained."""
    from layersearch.kernels.features._triton_text import why_not

    basis = named_basis(key)
    found = basis.fused(basis.state(1), torch.device("cpu")) if basis.kernel != "quotient" else None
    if found is None or (isinstance(found[0].form, Recurrence) and basis.learned):
        return False
    return why_not(found[0]) is None


def _kernel(features: Features) -> Any:
    from layersearch.kernels.features.triton import kernel

    return kernel(features)


class _Eager(torch.autograd.Function):
    """The kernels without the dispatcher; see ``_features._Eager``."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, weight: Tensor, key: str, features: Features, precision: str, n_tensors: int, *held: Tensor
    ) -> Tensor:
        ctx.key, ctx.features, ctx.precision, ctx.n_tensors = key, features, precision, n_tensors
        ctx.save_for_backward(u, weight, *held)
        y: Tensor = _kernel(features).forward(u, held[:n_tensors], weight.contiguous(), features, precision)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        u, weight, *held = ctx.saved_tensors
        tensors, values = held[: ctx.n_tensors], held[ctx.n_tensors :]
        nothing: list[Tensor | None] = [None] * len(held)
        wanted = any(ctx.needs_input_grad[6:])
        if not torch.is_grad_enabled():
            du, dw, found = _kernel(ctx.features).backward(
                g.contiguous(), u, tensors, weight.contiguous(), ctx.features, ctx.precision
            )
            grads = found + nothing[len(found) :] if wanted else nothing
            return du, dw.to(weight.dtype), None, None, None, None, *grads
        u, weight, *values = (t if t.requires_grad else t.detach().requires_grad_() for t in (u, weight, *values))
        state = dict(zip(state_names(ctx.key), values, strict=True))
        columns = named_basis(ctx.key).plain_columns(u, state).flatten(-2)
        y = torch.nn.functional.linear(columns.to(weight.dtype), weight.flatten(1))
        given = [u, weight, *values] if wanted else [u, weight]
        du, dw, *again = torch.autograd.grad(y, given, g, create_graph=True, allow_unused=True, materialize_grads=True)
        grads = [*nothing[: ctx.n_tensors], *(again or nothing[ctx.n_tensors :])]
        return du, dw, None, None, None, None, *grads


def _forward_impl(u: Tensor, weight: Tensor, tensors: list[Tensor], key: str, precision: str) -> Tensor:
    features = features_of(key)
    y: Tensor = _kernel(features).forward(u, tensors, weight.contiguous(), features, precision)
    return y


def _backward_impl(
    g: Tensor, u: Tensor, weight: Tensor, tensors: list[Tensor], key: str, precision: str, wanted: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradients of u, the weights and, if they are ``wanted``, of the tensors."""
    features = features_of(key)
    du, dw, found = _kernel(features).backward(g.contiguous(), u, tensors, weight.contiguous(), features, precision)
    return du, dw.to(weight.dtype), [t.clone() for t in found] if wanted else []


_forward_op: Any = torch.library.custom_op("layersearch::features_product", _forward_impl, mutates_args=())
_backward_op: Any = torch.library.custom_op("layersearch::features_product_backward", _backward_impl, mutates_args=())


@_forward_op.register_fake  # type: ignore[untyped-decorator]
def _(u: Tensor, weight: Tensor, tensors: list[Tensor], key: str, precision: str) -> Tensor:
    return weight.new_empty(u.shape[0], weight.shape[0])


@_backward_op.register_fake  # type: ignore[untyped-decorator]
def _(
    g: Tensor, u: Tensor, weight: Tensor, tensors: list[Tensor], key: str, precision: str, wanted: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    return torch.empty_like(u), torch.empty_like(weight), [torch.empty_like(t) for t in tensors] if wanted else []


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, list[Tensor], str, str], output: Tensor) -> None:
    u, weight, tensors, ctx.key, ctx.precision = inputs
    ctx.wanted = any(t.requires_grad for t in tensors)
    ctx.save_for_backward(u, weight, *tensors)


def _gradients(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None], None, None]:
    u, weight, *tensors = ctx.saved_tensors
    du, dw, found = _backward_op(g, u, weight, tensors, ctx.key, ctx.precision, ctx.wanted)
    return du, dw, found or [None] * len(tensors), None, None


_forward_op.register_autograd(_gradients, setup_context=_save)

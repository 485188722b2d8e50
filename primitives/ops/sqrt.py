"""Square root that keeps the sign."""

import torch
from torch import Tensor

from layersearch.primitives.op import OPS, Op
from layersearch.primitives.ops._identities import odd_function

__all__ = ["signed_sqrt"]


def signed_sqrt(x: Tensor, eps: float) -> Tensor:
    """``sign(x)·sqrt(|x| + eps)``; 0 at 0. The eps inside the root keeps the gradient finite."""
    return torch.sign(x) * torch.sqrt(torch.abs(x) + eps)


OPS.add(
    "sqrt",
    Op(
        "sqrt",
        type="sqrt",
        arity=1,
        reference=signed_sqrt,
        source="torch.sign({0}) * torch.sqrt(torch.abs({0}) + {eps})",
        scalar="sign(a) * sqrt(abs(a) + eps)",
        adjoint=("0.5 * g * (sign(a) * sign(a)) / sqrt(abs(a) + eps)",),
        text="sqrt({0})",
        latex=r"\mathrm{{sgn}}\sqrt{{{0}}}",
        level=4,
        cost=4,
        keeps_sign=True,
        guard="eps",
        simplify=odd_function("sqrt"),
    ),
)

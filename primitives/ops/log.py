"""Natural logarithm of the magnitude that keeps the sign."""

import torch
from torch import Tensor

from layersearch.primitives.op import OPS, Op
from layersearch.primitives.ops._identities import odd_function

__all__ = ["signed_log"]


def signed_log(x: Tensor, eps: float) -> Tensor:
    """``sign(x)·ln(|x| + eps)``; 0 at 0 (for eps > 0). At eps = 0 the value and gradient at 0 are not finite."""
    return torch.sign(x) * torch.log(torch.abs(x) + eps)


OPS.add(
    "log",
    Op(
        "log",
        type="log",
        arity=1,
        reference=signed_log,
        source="torch.sign({0}) * torch.log(torch.abs({0}) + {eps})",
        scalar="sign(a) * log(abs(a) + eps)",
        adjoint=("g * (sign(a) * sign(a)) / (abs(a) + eps)",),
        text="log({0})",
        latex=r"\mathrm{{sgn}}\ln\left({0}\right)",
        level=4,
        cost=8,
        guard="log_eps",
        simplify=odd_function("log"),
    ),
)

"""Hyperbolic tangent."""

import torch

from layersearch.primitives.op import OPS, Op
from layersearch.primitives.ops._identities import odd_function

__all__: list[str] = []

OPS.add(
    "tanh",
    Op(
        "tanh",
        type="tanh",
        arity=1,
        reference=torch.tanh,
        source="torch.tanh({0})",
        scalar="tanh(a)",
        adjoint=("g * (1 - y * y)",),
        text="tanh({0})",
        latex=r"\tanh\left({0}\right)",
        level=4,
        cost=10,
        keeps_sign=True,
        simplify=odd_function("tanh"),
    ),
)

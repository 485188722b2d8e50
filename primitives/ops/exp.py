"""Exponential; unguarded, an overflow is a non-finite value that the funnel rejects."""

import torch

from layersearch.primitives.op import OPS, Op

__all__: list[str] = []

OPS.add(
    "exp",
    Op(
        "exp",
        type="exp",
        arity=1,
        reference=torch.exp,
        source="torch.exp({0})",
        scalar="exp(a)",
        adjoint=("g * y",),
        text="exp({0})",
        latex=r"\exp\left({0}\right)",
        level=4,
        cost=8,
        nonnegative=True,
    ),
)

"""Logistic function."""

import torch

from layersearch.primitives.op import OPS, Op

__all__: list[str] = []

OPS.add(
    "sigmoid",
    Op(
        "sigmoid",
        type="sigmoid",
        arity=1,
        reference=torch.sigmoid,
        source="torch.sigmoid({0})",
        scalar="sigmoid(a)",
        adjoint=("g * (y * (1 - y))",),
        text="σ({0})",
        latex=r"\sigma\left({0}\right)",
        level=4,
        cost=10,
        nonnegative=True,
    ),
)

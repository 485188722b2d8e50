"""Absolute value; its derivative at 0 is 0."""

import torch

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import OPS, Op

__all__: list[str] = []


def _simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
    (a,) = args
    if build.is_nonnegative(a):
        return a
    return build.node("abs", build.args(a)[0]) if build.is_op(a, "neg") else None


OPS.add(
    "abs",
    Op(
        "abs",
        type="abs",
        arity=1,
        reference=torch.abs,
        source="torch.abs({0})",
        scalar="abs(a)",
        adjoint=("g * sign(a)",),
        text="|{0}|",
        latex=r"\left|{0}\right|",
        level=4,
        cost=1,
        nonnegative=True,
        simplify=_simplify,
    ),
)

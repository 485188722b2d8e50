"""Larger of two values; a NaN on either side comes through."""

import torch

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import OPS, Op

__all__: list[str] = []


def _simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
    a, b = args
    if a == b:
        return a
    for p, q in ((a, b), (b, a)):
        if build.is_op(p, "neg") and build.args(p)[0] == q:
            return build.node("abs", q)
        if build.is_const(p, 0.0) and build.is_nonnegative(q):
            return q
        if build.is_op(p, "abs") and build.args(p)[0] == q:
            return p
    return None


OPS.add(
    "max",
    Op(
        "max",
        type="max",
        arity=2,
        reference=torch.maximum,
        source="torch.maximum({0}, {1})",
        scalar="maximum(a, b)",
        adjoint=("g * share(a, b)", "g * share(b, a)"),
        text="max({0}, {1})",
        latex=r"\max\left({0}, {1}\right)",
        level=4,
        cost=1,
        commutative=True,
        simplify=_simplify,
    ),
)

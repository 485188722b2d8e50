"""Product of two values."""

import torch

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import OPS, Op

__all__: list[str] = []


def _simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
    a, b = args
    if a == b:
        return build.node("square", a)
    for p, q in ((a, b), (b, a)):
        if build.is_const(p, 0.0):
            return p
        if build.is_const(p, 1.0):
            return q
        if build.is_const(p, -1.0):
            return build.node("neg", q)
        if build.is_op(p, "neg"):
            return build.node("neg", build.node("mul", build.args(p)[0], q))
    return None


OPS.add(
    "mul",
    Op(
        "mul",
        type="mul",
        arity=2,
        reference=torch.mul,
        source="{0} * {1}",
        scalar="a * b",
        adjoint=("g * b", "g * a"),
        text="{0}·{1}",
        latex=r"{0} \cdot {1}",
        level=2,
        cost=1,
        keeps_sign=True,
        commutative=True,
        simplify=_simplify,
    ),
)

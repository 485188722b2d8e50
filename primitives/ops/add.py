"""Sum of two values."""

import torch

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import OPS, Op

__all__: list[str] = []


def _simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
    a, b = args
    for p, q in ((a, b), (b, a)):
        if build.is_const(p, 0.0):
            return q
        if build.is_op(p, "neg") and build.args(p)[0] == q:
            return build.const(0.0)
    return None


OPS.add(
    "add",
    Op(
        "add",
        type="add",
        arity=2,
        reference=torch.add,
        source="{0} + {1}",
        scalar="a + b",
        adjoint=("g", "g"),
        text="{0} + {1}",
        latex="{0} + {1}",
        level=1,
        cost=1,
        keeps_sign=True,
        commutative=True,
        simplify=_simplify,
    ),
)

"""Square."""

import torch

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import OPS, Op

__all__: list[str] = []


def _simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
    (a,) = args
    return build.node("square", build.args(a)[0]) if build.is_op(a, "neg", "abs") else None


OPS.add(
    "square",
    Op(
        "square",
        type="square",
        arity=1,
        reference=torch.square,
        source="torch.square({0})",
        scalar="a * a",
        adjoint=("2 * a * g",),
        text="square({0})",
        latex=r"\left({0}\right)^2",
        level=4,
        cost=1,
        nonnegative=True,
        simplify=_simplify,
    ),
)

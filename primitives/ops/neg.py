"""Change of sign."""

import torch

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import OPS, Op

__all__: list[str] = []


def _simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
    (a,) = args
    return build.args(a)[0] if build.is_op(a, "neg") else None


OPS.add(
    "neg",
    Op(
        "neg",
        type="neg",
        arity=1,
        reference=torch.neg,
        source="-{0}",
        scalar="-a",
        adjoint=("-g",),
        text="-{0}",
        latex="-{0}",
        level=3,
        cost=1,
        simplify=_simplify,
    ),
)

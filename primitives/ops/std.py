"""Centred second-order aggregates: the biased standard deviation over one of the four axis sets."""

import math

import torch
from torch import Tensor

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.domain import Axes
from layersearch.primitives.op import OPS, Moment, Op, Simplify

__all__: list[str] = []


def _finish(moment: Tensor, eps: float) -> Tensor:
    return torch.sqrt(moment + eps)


def _simplify(axes: Axes) -> Simplify:
    def simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
        (a,) = args
        if build.is_constant_over(a, axes):
            return build.const(math.sqrt(build.numerics.eps))
        return build.node(f"std_{axes}", build.args(a)[0]) if build.is_op(a, "neg") else None

    return simplify


for _axes in Axes:
    OPS.add(
        f"std_{_axes}",
        Op(
            f"std_{_axes}",
            type="std",
            arity=1,
            reference=_finish,
            source="torch.sqrt({0} + {eps})",
            scalar="sqrt(a + eps)",
            adjoint=("0.5 * g / y",),
            text=f"std_{_axes}({{0}})",
            latex=rf"s_{{{{{_axes.symbol}}}}}\left({{0}}\right)",
            level=4,
            cost=3,
            guard="eps",
            nonnegative=True,
            moment=Moment(_axes, "var"),
            simplify=_simplify(_axes),
        ),
    )

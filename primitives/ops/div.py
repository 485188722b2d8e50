"""Quotient of two values; the guard moves the denominator away from zero and keeps its sign."""

import torch
from torch import Tensor

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import OPS, Op

__all__ = ["div"]


def div(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """``a / (b + eps)`` for b ≥ 0 and ``a / (b - eps)`` for b < 0; exactly ``a / b`` at eps = 0.

    The paper inserts "small eps as necessary" without saying where; a plain ``b + eps`` has a pole at b = -eps.
    """
    return a / b if eps == 0 else a / torch.where(b < 0, b - eps, b + eps)


def _simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
    a, b = args
    if build.is_const(a, 0.0):
        return a
    if build.is_const(b, 1.0) and build.numerics.div_eps == 0:
        return a
    if build.is_op(a, "neg"):
        return build.node("neg", build.node("div", build.args(a)[0], b))
    return None


OPS.add(
    "div",
    Op(
        "div",
        type="div",
        arity=2,
        reference=div,
        source="{0} / torch.where({1} < 0, {1} - {eps}, {1} + {eps})",
        scalar="a / away(b, eps)",
        adjoint=("g / away(b, eps)", "-(g / away(b, eps)) * y"),
        exact_source="{0} / {1}",
        positive_source="{0} / ({1} + {eps})",
        text="{0} / {1}",
        latex=r"\frac{{{0}}}{{{1}}}",
        level=2,
        cost=4,
        keeps_sign=True,
        guard="div_eps",
        simplify=_simplify,
    ),
)

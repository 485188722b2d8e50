"""Second-order aggregates: the root mean square over one of the four axis sets."""

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
        return build.node(f"rms_{axes}", build.args(a)[0]) if build.is_op(a, "neg", "abs") else None

    return simplify


for _axes in Axes:
    OPS.add(
        f"rms_{_axes}",
        Op(
            f"rms_{_axes}",
            type="rms",
            arity=1,
            reference=_finish,
            source="torch.sqrt({0} + {eps})",
            scalar="sqrt(a + eps)",
            adjoint=("0.5 * g / y",),
            text=f"rms_{_axes}({{0}})",
            latex=rf"\mathrm{{{{rms}}}}_{{{{{_axes.symbol}}}}}\left({{0}}\right)",
            level=4,
            cost=2,
            guard="eps",
            nonnegative=True,
            moment=Moment(_axes, "square"),
            simplify=_simplify(_axes),
        ),
    )

"""First-order aggregates: the mean over one of the four axis sets."""

from torch import Tensor

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.domain import Axes
from layersearch.primitives.op import OPS, Moment, Op, Simplify

__all__: list[str] = []


def _finish(moment: Tensor, eps: float) -> Tensor:
    return moment


def _simplify(axes: Axes) -> Simplify:
    def simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
        (a,) = args
        if build.is_constant_over(a, axes):
            return a
        if build.is_op(a, "neg"):
            return build.node("neg", build.node(f"mean_{axes}", build.args(a)[0]))
        return None

    return simplify


for _axes in Axes:
    OPS.add(
        f"mean_{_axes}",
        Op(
            f"mean_{_axes}",
            type="mean",
            arity=1,
            reference=_finish,
            source="{0}",
            scalar="a",
            adjoint=("g",),
            text=f"mean_{_axes}({{0}})",
            latex=rf"\mu_{{{{{_axes.symbol}}}}}\left({{0}}\right)",
            level=4,
            cost=1,
            keeps_sign=True,
            moment=Moment(_axes, "mean"),
            simplify=_simplify(_axes),
        ),
    )

"""What an op is: one row that holds everything which must agree about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from layersearch.primitives.domain import Axes
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from layersearch.primitives.builder import GraphBuilder

__all__ = ["OPS", "Guard", "Moment", "Op", "Simplify", "group_count", "mean_over"]

Guard: TypeAlias = Literal["eps", "div_eps", "log_eps"]
"""Field of ``Numerics`` that an op needs; it reaches the reference as ``eps`` and the source as ``{eps}``."""


Simplify: TypeAlias = "Callable[[GraphBuilder, tuple[int, ...]], int | None]"
"""An algebraic identity: given the arguments, the node that is equal to the op's result, or None."""


def group_count(channels: int, groups: int) -> int:
    """Largest divisor of ``channels`` that does not exceed ``groups``."""
    return next(g for g in range(min(channels, groups), 0, -1) if channels % g == 0)


def mean_over(x: "Tensor", axes: Axes, groups: int) -> "Tensor":
    """Mean of ``x`` ``[N, C, H, W]`` over ``axes``, kept broadcastable against ``x``."""
    if axes is not Axes.GROUP:
        return x.mean(_DIMS[axes], keepdim=True)
    n, channels, height, width = x.shape
    g = group_count(channels, groups)
    means = x.reshape(n, g, channels // g, height, width).mean((2, 3, 4))
    return means.repeat_interleave(channels // g, dim=1)[:, :, None, None]


_DIMS = {Axes.BATCH: (0, 2, 3), Axes.LAYER: (1, 2, 3), Axes.INSTANCE: (2, 3)}


@dataclass(frozen=True)
class Moment:
    """The moment behind an aggregate: ``axes`` it is taken over, and which one (biased, always).

    ``kind`` also names the running buffer of a batch aggregate: it holds the moment before any root.
    """

    axes: Axes
    kind: Literal["mean", "square", "var"]

    def of(self, x: "Tensor", groups: int) -> "Tensor":
        """The moment of ``x`` ``[N, C, H, W]``, with size 1 along reduced axes (C stays for groups)."""
        if self.kind == "mean":
            return mean_over(x, self.axes, groups)
        if self.kind == "square":
            return mean_over(x * x, self.axes, groups)
        centred = x - mean_over(x, self.axes, groups)
        return mean_over(centred * centred, self.axes, groups)


@dataclass(frozen=True)
class Op:
    """A primitive function of a graph.

    Args:
        name: concrete name, e.g. ``std_batch``; the key of the registry and of genome files.
        type: op type of the search space, e.g. ``std``; aggregates share one over the four axis sets.
        arity: number of arguments.
        reference: elementwise ops: torch function of ``arity`` tensors (and ``eps`` if ``guard`` is set); aggregates:
            function of the moment and ``eps``. Any float dtype, dtype preserved.
        source: the same as a Python expression over ``{0}``, ``{1}``, ``{eps}``; what exported files contain.
        scalar: the same for generated kernels: a formula over ``a``, ``b``, ``eps`` in the scalar instructions of
            ``kernels.codegen.program`` (aggregates: ``a`` is the moment).
        adjoint: for each argument, its part of the gradient: a formula over ``a``, ``b``, ``eps``, the result ``y`` and
            the gradient ``g`` that arrives at it. Where the value has a kink, as torch has it: 0 for the sign of 0,
            half to each side of a tied maximum.
        text, latex: printed forms over ``{0}``, ``{1}``.
        level: binding strength of the printed form: 1 sum, 2 product, 3 sign, 4 call or bracketed.
        cost: relative cost of one element, in additions.
        guard: the numerics field it depends on.
        exact_source: expression used when the guard is 0, if it is another one.
        positive_source: expression used when the last argument is never negative, if it is another one.
        commutative: arguments may be swapped.
        nonnegative: the result is never below 0.
        keeps_sign: the result is never below 0 if no argument is.
        moment: set for aggregates.
        simplify: identities tried by the canonical form, beyond constant folding.
    """

    name: str
    type: str
    arity: int
    reference: "Callable[..., Tensor]"
    source: str
    scalar: str
    adjoint: tuple[str, ...]
    text: str
    latex: str
    level: int
    cost: int
    guard: Guard | None = None
    exact_source: str | None = None
    positive_source: str | None = None
    commutative: bool = False
    nonnegative: bool = False
    keeps_sign: bool = False
    moment: Moment | None = None
    simplify: "Simplify | None" = None

    def apply(self, *args: "Tensor", numerics: Numerics) -> "Tensor":
        """The op on full-size tensors ``[N, C, H, W]``; aggregates are broadcast back, as in the paper."""
        if self.moment is None:
            return self.reference(*args, numerics.guard(self.guard)) if self.guard else self.reference(*args)
        (x,) = args
        return self.reference(self.moment.of(x, numerics.groups), numerics.guard(self.guard)).expand_as(x)

    def expression(self, *args: str, eps: float, positive: bool = False) -> str:
        """``source`` with its arguments in place.

        Args:
            eps: value of the guard's field.
            positive: the last argument is known to be never negative.
        """
        template = self.source
        if eps == 0 and self.exact_source is not None:
            template = self.exact_source
        elif positive and self.positive_source is not None:
            template = self.positive_source
        return template.format(*args, eps=repr(eps))


OPS: Registry[Op] = Registry("op", package="layersearch.primitives.ops")

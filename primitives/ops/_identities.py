"""Algebraic identities that several rows share."""

from layersearch.primitives.builder import GraphBuilder
from layersearch.primitives.op import Simplify

__all__ = ["odd_function"]


def odd_function(op: str) -> Simplify:
    """f(-a) = -f(a)."""

    def simplify(build: GraphBuilder, args: tuple[int, ...]) -> int | None:
        (a,) = args
        return build.node("neg", build.node(op, build.args(a)[0])) if build.is_op(a, "neg") else None

    return simplify

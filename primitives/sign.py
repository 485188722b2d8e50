"""Which values can never be below zero, whatever the input: they need no sign test before a division."""

from layersearch.primitives.graph import CONST, LEAVES, Node
from layersearch.primitives.op import OPS

__all__ = ["never_negative"]


def never_negative(node: Node, args: list[bool]) -> bool:
    """Whether ``node`` is at least 0 given which of its arguments are (a NaN is let through)."""
    if node.op == CONST:
        return (node.value or 0.0) >= 0
    if node.op in LEAVES:
        return False
    op = OPS[node.op]
    if op.nonnegative:
        return True
    if op.type == "max":
        return any(args)
    return op.keeps_sign and all(args)

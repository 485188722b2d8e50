"""Builds graphs by hash-consing: equal subgraphs become one node, identities are applied as nodes are made."""

import hashlib
import math

import torch

from layersearch.primitives.domain import Axes, Domain, meet
from layersearch.primitives.graph import CONST, Graph, Node, domain_of
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.op import OPS
from layersearch.primitives.sign import never_negative

__all__ = ["GraphBuilder"]


class GraphBuilder:
    """Makes nodes once each; the content key of a node does not depend on the order in which nodes were made."""

    def __init__(self, numerics: Numerics) -> None:
        self.numerics = numerics
        self._nodes: list[Node] = []
        self._keys: list[bytes] = []
        self._domains: list[Domain] = []
        self._nonnegative: list[bool] = []
        self._by_key: dict[bytes, int] = {}

    def leaf(self, node: Node) -> int:
        return self._intern(Node(node.op, value=_clean(node.value), name=node.name))

    def const(self, value: float) -> int:
        return self.leaf(Node(CONST, value=value))

    def node(self, op: str, *args: int) -> int:
        """The op applied to ``args``: folded if all of them are constants, else simplified by the row's identities."""
        row = OPS[op]
        if all(self._nodes[a].op == CONST for a in args):
            folded = self._fold(op, args)
            if folded is not None:
                return self.const(folded)
        if row.simplify is not None:
            simpler = row.simplify(self, args)
            if simpler is not None:
                return simpler
        if row.commutative:
            args = tuple(sorted(args, key=self._keys.__getitem__))
        return self._intern(Node(op, args))

    def key(self, i: int) -> bytes:
        return self._keys[i]

    def args(self, i: int) -> tuple[int, ...]:
        return self._nodes[i].args

    def is_op(self, i: int, *ops: str) -> bool:
        return self._nodes[i].op in ops

    def is_const(self, i: int, value: float) -> bool:
        return self._nodes[i].op == CONST and self._nodes[i].value == value

    def is_nonnegative(self, i: int) -> bool:
        return self._nonnegative[i]

    def is_constant_over(self, i: int, axes: Axes) -> bool:
        """Whether the value does not vary over ``axes``, so that its mean over them is itself."""
        return meet(self._domains[i], axes.target) == self._domains[i]

    def graph(self, output: int) -> Graph:
        """The nodes that ``output`` needs, in depth-first order, as a graph."""
        order: list[int] = []
        place: dict[int, int] = {}

        def visit(i: int) -> None:
            if i in place:
                return
            for j in self._nodes[i].args:
                visit(j)
            place[i] = len(order)
            order.append(i)

        visit(output)
        nodes = [self._nodes[i] for i in order]
        return Graph(tuple(Node(n.op, tuple(place[j] for j in n.args), n.value, n.name) for n in nodes), self.numerics)

    def _intern(self, node: Node) -> int:
        head = f"{node.op}|{node.value!r}|{node.name}".encode()
        key = hashlib.blake2b(head + b"".join(self._keys[j] for j in node.args), digest_size=16).digest()
        found = self._by_key.get(key)
        if found is not None:
            return found
        self._nodes.append(node)
        self._keys.append(key)
        self._domains.append(domain_of(node, [self._domains[j] for j in node.args]))
        self._nonnegative.append(never_negative(node, [self._nonnegative[j] for j in node.args]))
        self._by_key[key] = len(self._nodes) - 1
        return len(self._nodes) - 1

    def _fold(self, op: str, args: tuple[int, ...]) -> float | None:
        """The value of an op of constants in float64; None where it is not finite: the node is kept, to be rejected."""
        row = OPS[op]
        values = [torch.tensor(self._nodes[a].value, dtype=torch.float64).reshape(1, 1, 1, 1) for a in args]
        result = float(row.apply(*values, numerics=self.numerics))
        return result if math.isfinite(result) else None


def _clean(value: float | None) -> float | None:
    """Adding 0.0 turns -0.0 into 0.0: one constant, one key."""
    return None if value is None else float(value) + 0.0

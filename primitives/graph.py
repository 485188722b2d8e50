"""The immutable graph of ops that a genome is: nodes in order, the last one is the output."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from layersearch.errors import GenomeError
from layersearch.primitives.domain import CONSTANT, FULL, PER_CHANNEL, Domain, join, meet
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.op import OPS

__all__ = ["CONST", "INPUT", "LEAVES", "PARAM", "Graph", "Node"]

INPUT = "x"
CONST = "const"
PARAM = "param"
LEAVES = (INPUT, CONST, PARAM)


@dataclass(frozen=True)
class Node:
    """One value: a leaf (``x``, a constant, a per-channel parameter) or an op of earlier nodes.

    ``value`` is the constant, or the initial value of a parameter; ``name`` is the parameter's name.
    """

    op: str
    args: tuple[int, ...] = ()
    value: float | None = None
    name: str | None = None


@dataclass(frozen=True)
class Graph:
    """A function of ``x`` ``[N, C, H, W]`` and per-channel parameters ``[C]``, same shape as ``x``.

    Nodes may be dead (not reached from the output): genomes of fixed length carry them. The per-channel affine
    ``y·γ + β`` that follows every layer is not part of the graph.
    Raises: GenomeError if a node is unknown, refers to itself or to a later node, or a parameter is given two values.
    """

    nodes: tuple[Node, ...]
    numerics: Numerics = field(default_factory=Numerics)

    def __post_init__(self) -> None:
        if not self.nodes:
            raise GenomeError("a graph needs at least one node, got none; the last node is its output")
        initial: dict[str | None, float | None] = {}
        for i, node in enumerate(self.nodes):
            self._check(i, node)
            if node.op == PARAM and initial.setdefault(node.name, node.value) != node.value:
                raise GenomeError(
                    f"node {i}: {node.name} has one initial value, got {initial[node.name]} and {node.value}; rename"
                )

    def _check(self, i: int, node: Node) -> None:
        if node.op == PARAM and not re.fullmatch(r"v[0-9]{1,4}", node.name or ""):
            raise GenomeError(f"node {i}: a parameter is named v and digits, got {node.name!r}; use for example 'v1'")
        arity = 0 if node.op in LEAVES else OPS[node.op].arity
        if len(node.args) != arity:
            raise GenomeError(f"node {i}: {node.op} takes {arity} arguments, got {len(node.args)}")
        for j in node.args:
            if not 0 <= j < i:
                raise GenomeError(
                    f"node {i}: arguments must be earlier nodes (0 to {i - 1}), got {j}; a graph has no cycles"
                )

    @property
    def output(self) -> int:
        return len(self.nodes) - 1

    @cached_property
    def active(self) -> tuple[int, ...]:
        """Indices of the nodes that the output depends on, in order."""
        reached = {self.output}
        for i in range(self.output, -1, -1):
            if i in reached:
                reached.update(self.nodes[i].args)
        return tuple(sorted(reached))

    @cached_property
    def domains(self) -> tuple[Domain, ...]:
        """Domain of every node."""
        domains: list[Domain] = []
        for node in self.nodes:
            domains.append(domain_of(node, [domains[j] for j in node.args]))
        return tuple(domains)

    def params(self) -> Iterator[Node]:
        """Parameters that the output depends on, in order of their names."""
        named = {n.name: n for i in self.active if (n := self.nodes[i]).op == PARAM}
        return iter([named[name] for name in sorted(named, key=str)])

    def uses_batch_moments(self) -> bool:
        """Whether an active node reduces over the batch (the B-series), so that running buffers are needed."""
        return any(self._axes(i) == "batch" for i in self.active)

    def uses_group_moments(self) -> bool:
        return any(self._axes(i) == "group" for i in self.active)

    def _axes(self, i: int) -> str | None:
        op = self.nodes[i].op
        if op in LEAVES:
            return None
        moment = OPS[op].moment
        return moment.axes if moment else None


def domain_of(node: Node, args: list[Domain]) -> Domain:
    """Domain of ``node`` given its arguments' domains."""
    if node.op == INPUT:
        return FULL
    if node.op == CONST:
        return CONSTANT
    if node.op == PARAM:
        return PER_CHANNEL
    moment = OPS[node.op].moment
    return meet(args[0], moment.axes.target) if moment else join(*args)

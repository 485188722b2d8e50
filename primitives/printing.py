"""Printed formulas: text for terminals and docstrings, LaTeX for papers."""

from typing import Literal

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import CONST, INPUT, PARAM, Graph
from layersearch.primitives.op import OPS

__all__ = ["formula", "latex"]

_CALL, _ATOM = 4, 5
_LONGEST = 160
_DEFINITIONS_TEXT, _DEFINITIONS_LATEX = " where ", r" \quad\text{where}\quad "


def formula(graph: Graph) -> str:
    """Text such as ``x / max(std_batch(x), v1·x + std_instance(x))``; shared parts of long formulas are named."""
    return _print(graph, "text")


def latex(graph: Graph) -> str:
    """The same in LaTeX (math mode, amsmath)."""
    return _print(graph, "latex")


def _print(graph: Graph, style: Literal["text", "latex"]) -> str:
    graph = canonical(graph)
    inline = _Printer(graph, style, named=frozenset())
    whole = inline.show(graph.output)
    if len(whole) <= _LONGEST:
        return whole
    uses: dict[int, int] = {}
    for i in graph.active:
        for j in graph.nodes[i].args:
            uses[j] = uses.get(j, 0) + 1
    shared = frozenset(i for i, n in uses.items() if n > 1 and graph.nodes[i].args and len(inline.show(i)) > 12)
    printer = _Printer(graph, style, named=shared)
    definitions = [f"{printer.name(i)} = {printer.body(i)[0]}" for i in sorted(shared)]
    if not definitions:
        return whole
    join = _DEFINITIONS_TEXT if style == "text" else _DEFINITIONS_LATEX
    return printer.body(graph.output)[0] + join + ", ".join(definitions)


class _Printer:
    def __init__(self, graph: Graph, style: Literal["text", "latex"], named: frozenset[int]) -> None:
        self.graph, self.style = graph, style
        self._names = {i: (f"t{k}" if style == "text" else f"t_{{{k}}}") for k, i in enumerate(sorted(named), 1)}
        self._memo: dict[int, tuple[str, int]] = {}

    def name(self, i: int) -> str:
        return self._names[i]

    def show(self, i: int) -> str:
        return self._part(i)[0]

    def _part(self, i: int) -> tuple[str, int]:
        return (self._names[i], _ATOM) if i in self._names else self.body(i)

    def body(self, i: int) -> tuple[str, int]:
        """Printed form and binding strength of a node, its arguments by name where they have one."""
        if i not in self._memo:
            self._memo[i] = self._write(i)
        return self._memo[i]

    def _write(self, i: int) -> tuple[str, int]:
        node = self.graph.nodes[i]
        if node.op == INPUT:
            return "x", _ATOM
        if node.op == CONST:
            return f"{node.value:g}", _ATOM if (node.value or 0) >= 0 else 3
        if node.op == PARAM:
            name = str(node.name)
            return (name if self.style == "text" else f"v_{{{name[1:]}}}"), _ATOM
        op = OPS[node.op]
        template = op.text if self.style == "text" else op.latex
        order = sorted(node.args, key=self._rank) if op.commutative else list(node.args)
        if node.op == "add" and self._negated(order[1]):
            (inner,) = self.graph.nodes[order[1]].args
            return f"{self._bracketed(order[0], 1)} - {self._bracketed(inner, 2)}", op.level
        if op.level == _CALL or (self.style == "latex" and node.op == "div"):
            return template.format(*(self.show(j) for j in order)), op.level
        return template.format(
            *(self._bracketed(j, op.level, place, node.op) for place, j in enumerate(order))
        ), op.level

    def _bracketed(self, j: int, level: int, place: int = 0, op: str = "") -> str:
        """Argument ``j`` in brackets where it binds more weakly, or where a reader could group it differently."""
        text, own = self._part(j)
        quotient = self.graph.nodes[j].op == "div" and j not in self._names and self.style == "text"
        loose = own == level and ((op == "div" and place == 1) or (op == "mul" and quotient) or level == 3)
        if own >= level and not loose:
            return text
        return f"({text})" if self.style == "text" else rf"\left({text}\right)"

    def _negated(self, i: int) -> bool:
        return self.graph.nodes[i].op == "neg" and i not in self._names

    def _rank(self, i: int) -> int:
        """Parameters before x before terms before negated terms and constants: the order a reader expects."""
        op = self.graph.nodes[i].op
        if op == CONST or self._negated(i):
            return 3
        return {PARAM: 0, INPUT: 1}.get(op, 2)

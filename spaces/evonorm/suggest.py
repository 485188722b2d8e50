"""Graphs as parameters that a sampler of numbers and choices can learn: one decision after the other, all legal.

A graph is written down from its output downwards, since a sampler fits each parameter by itself: numbered from the
inputs on, three in four would describe nodes that the output does not use, and the rest would mean another thing in
every graph; named by the place below the output, all are in use and ``f1.op`` is the denominator's op wherever the
output ``f`` is a division (the prototype tree of Salustowicz and Schmidhuber 1997, Probabilistic Incremental Program
Evolution).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from layersearch.primitives.domain import Axes, Domain
from layersearch.primitives.graph import LEAVES, Graph, Node, domain_of
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.op import OPS
from layersearch.spaces.contracts import Trial
from layersearch.spaces.evonorm.published import INPUTS

__all__ = ["Encoding"]

Place: TypeAlias = str
"""Where a value stands: ``f`` is the output, ``f0`` and ``f1`` are its arguments, ``f10`` is the first of ``f1``."""

_CONSTANTS = ("0", "v0", "v1")  # the initial nodes after x
_TYPES = tuple(sorted({op.type for op in OPS.values()}))
_ELEMENTWISE = tuple(sorted({op.type for op in OPS.values() if op.moment is None}))
_X = 0


class _MismatchError(Exception):
    """The graph to be described is none that could be suggested."""


class _Decisions(Protocol):
    """Where decisions come from. ``target`` is the node of the graph to be described that stands at the place."""

    def choice(self, name: str, choices: Sequence[str], target: int) -> str: ...

    def size(self, most: int) -> int: ...

    def again(self, name: str, candidates: Sequence[int], target: int) -> int: ...

    def argument(self, target: int, i: int) -> int:
        """The node that is argument ``i`` of ``target``."""
        ...

    def finished(self, target: int, node: int) -> None:
        """``target`` was written down as ``node``."""
        ...


@dataclass(frozen=True)
class Encoding:
    """Graphs over the four initial nodes, every op node in use and the output varying over space.

    These are all genomes that pass the static screen, without their dead nodes.

    The parameters: ``size``, the number of ops (1 to ``nodes``). Then, depth first from the output ``f``, for every
    place: whether an op or a value stands there (``kind``, where both can); of an op its type (``op``; where only an
    elementwise one leaves the output varying, ``elementwise``) and, of an aggregate, its ``axes``; of a value whether
    it is x, a ``constant`` (0, v0, v1) or ``again`` an op node that is complete already, counted from the latest one.
    What is the only possibility is not asked for. A name says what there is to choose from: to a sampler, one name is
    one fixed set.

    Args:
        nodes: largest number of ops.
        batch_moments: whether aggregates over the batch are legal (B-series) or not (S-series).
        numerics: of every graph suggested.
    """

    nodes: int
    batch_moments: bool
    numerics: Numerics

    def suggest(self, trial: Trial) -> Graph:
        """The graph of a trial's answers."""
        return _Writer(self, _Asked(trial)).graph(-1)

    def parameters(self, graph: Graph) -> dict[str, int | str] | None:
        """The answers for which ``suggest`` gives ``graph`` without its dead nodes; ``None`` if there are none."""
        given = _Described(graph)
        try:
            _Writer(self, given).graph(graph.output)
        except _MismatchError:
            return None
        return given.answers

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(a.value for a in Axes if self.batch_moments or a is not Axes.BATCH)


@dataclass
class _Writer:
    """One walk through the decisions. Op nodes are appended when their arguments are complete, so none is a cycle."""

    encoding: Encoding
    decide: _Decisions
    nodes: list[Node] = field(default_factory=lambda: list(INPUTS))
    domains: list[Domain] = field(default_factory=lambda: [domain_of(node, []) for node in INPUTS])
    left: int = 0  # ops that are still to be placed

    def graph(self, target: int) -> Graph:
        self.left = self.decide.size(self.encoding.nodes)
        self._op("f", 0, True, target)
        return Graph(tuple(self.nodes), self.encoding.numerics)

    def _argument(self, place: Place, others: int, must_vary: bool, target: int) -> int:
        """The node at ``place``.

        Args:
            others: places that are to be filled after this one.
            must_vary: whether it has to vary over space for the output to do so.
        """
        kinds = ("value",) if self.left == 0 else ("op",) if others == 0 else ("op", "value")
        if self.decide.choice(f"{place}.kind", kinds, target) == "op":
            return self._op(place, others, must_vary, target)
        there = [i for i in range(len(self.nodes) - 1, len(INPUTS) - 1, -1) if self.domains[i].s or not must_vary]
        values = ("x", *(() if must_vary else ("constant",)), *(("again",) if there else ()))
        match self.decide.choice(f"{place}.{'-'.join(values)}", values, target):
            case "constant":
                return 1 + _CONSTANTS.index(self.decide.choice(f"{place}.constant", _CONSTANTS, target))
            case "again":
                return there[self.decide.again(f"{place}.again-of-{len(there)}", there, target)]
        return _X

    def _op(self, place: Place, others: int, must_vary: bool, target: int) -> int:
        self.left -= 1
        name, types = ("elementwise", _ELEMENTWISE) if must_vary else ("op", _TYPES)
        op = self.decide.choice(f"{place}.{name}", types, target)
        if op not in _ELEMENTWISE:
            op = f"{op}_{self.decide.choice(f'{place}.axes', self.encoding.axes, target)}"
        args: list[int] = []
        for i in range(OPS[op].arity):
            after = OPS[op].arity - 1 - i
            needed = must_vary and after == 0 and not any(self.domains[a].s for a in args)
            below = self.decide.argument(target, i)
            args.append(self._argument(f"{place}{i}", others + after, needed, below))
        node = Node(op, tuple(args))
        self.nodes.append(node)
        self.domains.append(domain_of(node, [self.domains[a] for a in args]))
        self.decide.finished(target, len(self.nodes) - 1)
        return len(self.nodes) - 1


class _Asked:
    """Decisions of a trial; there is no graph to be described."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def choice(self, name: str, choices: Sequence[str], target: int) -> str:
        return choices[0] if len(choices) == 1 else str(self._trial.suggest_categorical(name, choices))

    def size(self, most: int) -> int:
        return self._trial.suggest_int("size", 1, most) if most > 1 else 1

    def again(self, name: str, candidates: Sequence[int], target: int) -> int:
        return self._trial.suggest_int(name, 0, len(candidates) - 1) if len(candidates) > 1 else 0

    def argument(self, target: int, i: int) -> int:
        return target

    def finished(self, target: int, node: int) -> None:
        """Nothing to be remembered."""


class _Described:
    """Decisions that write down a given graph, and the answers of a trial that would have made them."""

    def __init__(self, graph: Graph) -> None:
        self.answers: dict[str, int | str] = {}
        self._graph = graph
        self._place: dict[int, int] = {}  # op nodes of the graph that are written down: as which node

    def choice(self, name: str, choices: Sequence[str], target: int) -> str:
        fitting = self._labels(target).intersection(choices)
        if not fitting:
            raise _MismatchError
        (answer,) = fitting
        if len(choices) > 1:
            self.answers[name] = answer
        return answer

    def _labels(self, target: int) -> set[str]:
        """What is true of a node, in the words of all choices."""
        node = self._graph.nodes[target]
        if target == _X:
            return {"value", "x"}
        if node.op in LEAVES:
            return {"value", "constant", _CONSTANTS[target - 1]}
        if target in self._place:
            return {"value", "again"}
        moment = OPS[node.op].moment
        return {"op", OPS[node.op].type, *((moment.axes.value,) if moment else ())}

    def size(self, most: int) -> int:
        n_ops = sum(self._graph.nodes[i].op not in LEAVES for i in self._graph.active)
        if not 1 <= n_ops <= most:
            raise _MismatchError
        if most > 1:
            self.answers["size"] = n_ops
        return n_ops

    def again(self, name: str, candidates: Sequence[int], target: int) -> int:
        if self._place[target] not in candidates:
            raise _MismatchError
        answer = candidates.index(self._place[target])
        if len(candidates) > 1:
            self.answers[name] = answer
        return answer

    def argument(self, target: int, i: int) -> int:
        return self._graph.nodes[target].args[i]

    def finished(self, target: int, node: int) -> None:
        self._place[target] = node

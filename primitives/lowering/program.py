"""A graph as two programs for a compiler: forward, and backward by symbolic adjoint over the same values.

Backward keeps ``x`` and the statistics of planes and channels that forward computed; all full-size values are computed
again from ``x``. Every sum is a sum of plane sums, in a fixed order: equal input gives equal bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from layersearch.kernels.codegen.program import Extent, Program, Result
from layersearch.primitives.canonical import canonical
from layersearch.primitives.domain import CONSTANT, FULL, PER_CHANNEL, meet
from layersearch.primitives.graph import CONST, INPUT, PARAM, Graph
from layersearch.primitives.lowering.program_formula import apply
from layersearch.primitives.lowering.program_schedule import schedule, statistics
from layersearch.primitives.lowering.program_values import Values
from layersearch.primitives.op import OPS
from layersearch.primitives.running import RunningMoment, running_moments

__all__ = ["LayerProgram", "lower"]

_GAIN, _OFFSET = "weight", "bias"


@dataclass(frozen=True)
class LayerProgram:
    """``graph(x)·γ + β`` in one mode.

    ``inputs``: names of the parameters, then of the buffers that are read, in the order of ``Statement.index``.
    ``n_params``: how many of them are parameters; backward's results are their gradients, each ``[C]``.
    ``moments``: buffers that a training step moves, in the order of the forward program's ``tracked`` results.
    ``forward_nodes``, ``backward_nodes``: statements that are a node of the canonical graph, with its index.
    """

    forward: Program
    backward: Program
    inputs: tuple[str, ...]
    n_params: int
    moments: tuple[str, ...]
    forward_nodes: Mapping[int, int]
    backward_nodes: Mapping[int, int]


class _Lowered:
    """Values of a canonical graph in one mode."""

    def __init__(self, graph: Graph, training: bool) -> None:
        self.graph = graph
        self.build = Values()
        self.running = {m.node: m for m in running_moments(graph)}
        self.params = [_GAIN, _OFFSET, *(str(node.name) for node in graph.params())]
        self.buffers = [] if training else list(self.running.values())
        self.value: dict[int, int] = {}
        self.raw_moment: dict[int, int] = {}
        for i in graph.active:
            self.value[i] = self._node(i)
        self.body = self.value[graph.output]
        gain, offset = self.build.param(0), self.build.param(1)
        self.output = self.build.call("add", self.build.call("mul", self.body, gain), offset)

    def _node(self, i: int) -> int:
        node, build = self.graph.nodes[i], self.build
        if node.op == INPUT:
            return build.x()
        if node.op == CONST:
            return build.const(node.value or 0.0)
        if node.op == PARAM:
            return build.param(self.params.index(str(node.name)))
        op = OPS[node.op]
        names = dict(zip("ab", (self.value[j] for j in node.args), strict=False))
        if op.moment is not None:
            names["a"] = self.raw_moment[i] = self._moment(i, names["a"])
        return apply(build, op.scalar, names | {"eps": build.const(self.graph.numerics.guard(op.guard))})

    def _moment(self, i: int, operand: int) -> int:
        moment = OPS[self.graph.nodes[i].op].moment
        assert moment is not None
        buffer = self.running.get(i)
        if buffer in self.buffers and buffer is not None:
            return self.build.param(len(self.params) + self.buffers.index(buffer), buffer.per_channel)
        return self.build.moment(moment.kind, operand, moment.axes)

    def gradients(self) -> dict[str, int]:
        """Gradients of x (under the name ``x``) and of every parameter, for the upstream gradient g."""
        build = self.build
        g = build.upstream()
        found = {
            _GAIN: build.total(build.call("mul", g, self.body), PER_CHANNEL),
            _OFFSET: build.total(g, PER_CHANNEL),
        }
        start = build.contribution(build.call("mul", g, build.param(0)), FULL, build.domain(self.body))
        adjoint = {self.graph.output: start}
        for i in reversed(self.graph.active):
            node = self.graph.nodes[i]
            if i not in adjoint:
                continue
            if node.op == INPUT:
                found[INPUT] = adjoint[i]
            elif node.op == PARAM:
                found[str(node.name)] = adjoint[i]
            elif node.op != CONST:
                for j, part in self._parts(i, adjoint[i]):
                    adjoint[j] = build.call("add", adjoint[j], part) if j in adjoint else part
        zero = build.const(0.0)
        return {name: found.get(name, zero) for name in (INPUT, *self.params)}

    def _parts(self, i: int, arriving: int) -> list[tuple[int, int]]:
        """What node ``i`` passes on to each of its arguments."""
        node, build = self.graph.nodes[i], self.build
        op = OPS[node.op]
        names = {"y": self.value[i], "g": arriving, "eps": build.const(self.graph.numerics.guard(op.guard))}
        if op.moment is not None:
            (j,) = node.args
            names["a"] = self.raw_moment[i]
            part = apply(build, op.adjoint[0], names)
            return [] if self._is_buffer(i) else [(j, self._moment_part(i, j, part))]
        names |= dict(zip("ab", (self.value[j] for j in node.args), strict=False))
        parts: list[tuple[int, int]] = []
        for j, formula in zip(node.args, op.adjoint, strict=True):
            part = apply(build, formula, names)
            parts.append((j, build.contribution(part, build.domain(self.value[i]), build.domain(self.value[j]))))
        return parts

    def _is_buffer(self, i: int) -> bool:
        return bool(self.buffers) and i in self.running

    def _moment_part(self, i: int, j: int, arriving: int) -> int:
        """Gradient of a moment's operand: a/n for the mean, 2·a·u/n for the mean square, 2·a·(u - mean)/n for var."""
        build, moment = self.build, OPS[self.graph.nodes[i].op].moment
        assert moment is not None
        u = self.value[j]
        domain = build.domain(u)
        target = meet(domain, moment.axes.target)
        part = build.per(arriving, domain, target)
        if moment.kind == "mean":
            return part
        if moment.kind == "var":
            u = build.call("sub", u, build.mean(u, target))
        return build.call("mul", build.call("mul", build.const(2.0), part), u)


def lower(graph: Graph, *, training: bool = True) -> LayerProgram:
    """Programs of the layer ``graph(x)·γ + β``; ``training=False``: batch aggregates are read from running buffers.

    Number of passes (each reads the whole tensor): one for each level of moments over space, and one to write. EvoNorm
    layers and batch normalization take two each way.
    """
    lowered = _Lowered(canonical(graph), training)
    build = lowered.build
    moments = [] if lowered.buffers else list(lowered.running.values())
    raw = [lowered.raw_moment[m.node] for m in moments]
    gradients = lowered.gradients()
    kept = statistics(build, known=(lowered.output, *raw), wanted=tuple(gradients.values()))
    results = [Result(i, build.statements[i].extent) for i in kept]
    results += [Result(i, _extent(m)) for i, m in zip(raw, moments, strict=True)]
    inputs = (*lowered.params, *(m.name for m in lowered.buffers))
    grads = tuple(Result(gradients[name], Extent(*PER_CHANNEL)) for name in lowered.params)
    tracked = tuple(range(len(kept), len(results)))
    forward, forward_places = schedule(build, lowered.output, tuple(results), tracked=tracked)
    backward, backward_places = schedule(build, gradients[INPUT], grads, given=tuple(results))
    return LayerProgram(
        forward=forward,
        backward=backward,
        inputs=inputs,
        n_params=len(lowered.params),
        moments=tuple(m.name for m in moments),
        forward_nodes={forward_places[v]: i for i, v in lowered.value.items() if v in forward_places},
        backward_nodes={backward_places[v]: i for i, v in lowered.value.items() if v in backward_places},
    )


def _extent(moment: RunningMoment) -> Extent:
    return Extent(*(PER_CHANNEL if moment.per_channel else CONSTANT))

"""Straight-line torch source of a graph: the body of exported files, and of the layers that are trained.

Moments over every axis set are merged from plane moments (mean and centred square of each ``[H, W]`` plane), so that
several aggregates of one value read it once, and no difference of squares is ever taken (Chan's merge).
"""

import functools
import linecache
import textwrap
from typing import Any

from torch import nn

from layersearch.primitives.canonical import canonical, structural_key
from layersearch.primitives.domain import FULL, Axes, meet
from layersearch.primitives.graph import CONST, INPUT, LEAVES, PARAM, Graph
from layersearch.primitives.lowering.base import LOWERINGS, Lowering
from layersearch.primitives.lowering.generated import GeneratedLayer
from layersearch.primitives.op import OPS, Moment
from layersearch.primitives.running import running_moments
from layersearch.primitives.sign import never_negative

__all__ = ["build_torch_layer", "layer_class", "layer_source"]

_REDUCE = {
    Axes.BATCH: "{0}.mean(0, keepdim=True)",
    Axes.LAYER: "{0}.mean(1, keepdim=True)",
    Axes.INSTANCE: "{0}",
    Axes.GROUP: "_group_mean({0}, self.groups)",
}
_GROUP_MEAN = '''

def _group_mean(t: Tensor, groups: int) -> Tensor:
    """Mean over the channels of each group of ``t`` ``[N, C, 1, 1]``, repeated for every channel of the group."""
    n, channels = t.shape[:2]
    means = t.reshape(n, groups, channels // groups).mean(2, keepdim=True)
    return means.expand(-1, -1, channels // groups).reshape(n, channels, 1, 1)
'''


_CHECK = (
    "if not torch.jit.is_tracing() and (input.dim() != 4 or input.shape[1] != self.num_features):",
    '    raise ValueError(f"input must be [N, {self.num_features}, H, W], got {list(input.shape)}")',
)
"""One channel would be broadcast. To ``torch.jit.trace`` sizes are tensors, of which it would warn."""


class _Forward:
    """Writes the statements of ``forward`` for one canonical graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.running = {m.node: m for m in running_moments(graph)}
        self.nonnegative: list[bool] = []
        for node in graph.nodes:
            self.nonnegative.append(never_negative(node, [self.nonnegative[j] for j in node.args]))
        self.lines: list[str] = []
        self.names: dict[int, str] = {}
        self._always: dict[tuple[int, str], str] = {}  # plane moments and means at hand in every mode
        self._training: dict[tuple[int, str], str] = {}  # those at hand under `if self.training` alone
        self._batch: dict[int, str] = {}
        self._count: dict[str, int] = {}
        self._shared = {
            (self.graph.nodes[i].args[0], plane)
            for i in graph.active
            if graph.nodes[i].op not in LEAVES and i not in self.running
            if (moment := OPS[graph.nodes[i].op].moment) is not None
            for plane in (("mean", "var") if moment.kind == "var" else (moment.kind,))
        }

    def write(self) -> list[str]:
        for i in self.graph.active:
            node = self.graph.nodes[i]
            if node.op == INPUT:
                self.names[i] = "x"
            elif node.op == CONST:
                self.names[i] = f"x.new_full((), {node.value!r})" if i == self.graph.output else repr(node.value)
            elif node.op == PARAM:
                self.names[i] = str(node.name)
                self.lines.append(f"{node.name} = self.{node.name}.view(1, -1, 1, 1)")
            else:
                self._op(i)
        return self.lines

    def _op(self, i: int) -> None:
        node = self.graph.nodes[i]
        op = OPS[node.op]
        eps = self.graph.numerics.guard(op.guard)
        if op.moment is None:
            args = [self._tensor(j) if op.level == 4 or op.guard else self._bracketed(j) for j in node.args]
            name = self._new(op.type)
            self.lines.append(f"{name} = {op.expression(*args, eps=eps, positive=self.nonnegative[node.args[-1]])}")
        else:
            moment = self._moment(i, op.moment)
            name = self._new(op.type) if op.source != "{0}" else moment
            if name != moment:
                self.lines.append(f"{name} = {op.expression(moment, eps=eps)}")
        self.names[i] = name

    def _bracketed(self, j: int) -> str:
        return f"({self.names[j]})" if self.names[j].startswith("-") else self.names[j]

    def _tensor(self, j: int) -> str:
        """Functions such as torch.maximum and torch.where take no Python numbers; ``new_full`` copies none to a GPU."""
        return f"x.new_full((), {self.names[j]})" if self.graph.nodes[j].op == CONST else self.names[j]

    def _new(self, stem: str) -> str:
        self._count[stem] = self._count.get(stem, 0) + 1
        return f"{stem}{self._count[stem]}"

    def _moment(self, i: int, moment: Moment) -> str:
        """Name of the value of an aggregate's moment, small; batch moments come from the buffer in eval mode."""
        operand = self.graph.nodes[i].args[0]
        if i not in self.running:
            return self._merged(operand, moment, self._always, self.lines)
        if i not in self._batch:
            self._branch(operand)
        return self._batch[i]

    def _branch(self, operand: int) -> None:
        """All batch moments of one value in one branch: they share plane moments, which eval mode does not have."""
        block: list[str] = []
        tracked: list[str] = []
        otherwise: list[str] = []
        for i in sorted(self.running):
            moment = OPS[self.graph.nodes[i].op].moment
            if self.graph.nodes[i].args[0] != operand or moment is None:
                continue
            for plane in ("mean", "square", "var"):
                if (operand, plane) in self._shared and plane in (moment.kind, "mean"):
                    self._plane(operand, plane, self._always, self.lines)
            name = self._batch[i] = self._merged(operand, moment, self._training, block)
            tracked.append(f"self._track(self.{self.running[i].name}, {name})")
            otherwise.append(f"{name} = self.{self.running[i].name}.view(1, -1, 1, 1)")
        self.lines += ["if self.training and x.numel() > 0:", *(f"    {line}" for line in (*block, *tracked))]
        self.lines += ["else:", *(f"    {line}" for line in otherwise)]

    def _merged(self, operand: int, moment: Moment, known: dict[tuple[int, str], str], lines: list[str]) -> str:
        domain = self.graph.domains[operand]
        if meet(domain, moment.axes.target) == domain:
            u = self.names[operand]
            return u if moment.kind == "mean" else self._save(f"torch.square({u})", "square", lines)
        reduce = _REDUCE[moment.axes]
        if moment.kind != "var":
            plane = self._plane(operand, moment.kind, known, lines)
            return plane if reduce == "{0}" else self._once(operand, moment, reduce.format(plane), known, lines)
        mean_plane = self._plane(operand, "mean", known, lines)
        if not domain.s:
            mean = self._once(operand, Moment(moment.axes, "mean"), reduce.format(mean_plane), known, lines)
            return self._save(reduce.format(f"torch.square({mean_plane} - {mean})"), "var", lines)
        var_plane = self._plane(operand, "var", known, lines)
        if reduce == "{0}":
            return var_plane
        mean = self._once(operand, Moment(moment.axes, "mean"), reduce.format(mean_plane), known, lines)
        merged = reduce.format(f"({var_plane} + torch.square({mean_plane} - {mean}))")
        return self._save(merged.replace("_group_mean((", "_group_mean(").replace("), self", ", self"), "var", lines)

    def _once(
        self, operand: int, moment: Moment, expression: str, known: dict[tuple[int, str], str], lines: list[str]
    ) -> str:
        key = (operand, f"{moment.kind}_{moment.axes}")
        if key not in known:
            known[key] = self._save(expression, moment.kind, lines)
        return known[key]

    def _plane(self, operand: int, kind: str, known: dict[tuple[int, str], str], lines: list[str]) -> str:
        """Mean, mean square or variance of every plane ``[H, W]`` of a value, ``[N, C, 1, 1]``."""
        found = self._always.get((operand, kind)) or known.get((operand, kind))
        if found:
            return found
        u = self.names[operand]
        if not self.graph.domains[operand].s:
            name = u if kind == "mean" else self._save(f"torch.square({u})", "square", lines)
        elif kind == "mean":
            name = self._save(f"{u}.mean((2, 3), keepdim=True)", "plane_mean", lines)
        elif kind == "square":
            name = self._save(f"torch.square({u}).mean((2, 3), keepdim=True)", "plane_square", lines)
        else:
            mean = self._plane(operand, "mean", known, lines)
            name = self._save(f"torch.square({u} - {mean}).mean((2, 3), keepdim=True)", "plane_var", lines)
        known[(operand, kind)] = name
        return name

    def _save(self, expression: str, stem: str, lines: list[str]) -> str:
        name = self._new(stem)
        lines.append(f"{name} = {expression}")
        return name


def layer_source(graph: Graph, *, class_name: str = "Layer", doc: str = "") -> str:
    """A module of plain torch code with one class that is the layer ``graph(x)·γ + β``.

    Args:
        graph: brought to canonical form first.
        class_name: name of the class, an identifier.
        doc: docstring of the class.
    """
    graph = canonical(graph)
    if not class_name.isidentifier():
        raise ValueError(f"class_name must be an identifier, got {class_name!r}")
    grouped, running = graph.uses_group_moments(), running_moments(graph)
    signature = "self, num_features: int"
    signature += f", groups: int = {graph.numerics.groups}" if grouped else ""
    signature += ", momentum: float = 0.1" if running else ""
    init = ["self.num_features = num_features"]
    if grouped:
        init.append("self.groups = next(g for g in range(min(groups, num_features), 0, -1) if num_features % g == 0)")
    if running:
        init.append("self.momentum = momentum")
    init += [
        "self.weight = nn.Parameter(torch.ones(num_features))",
        "self.bias = nn.Parameter(torch.zeros(num_features))",
    ]
    for node in graph.params():
        init.append(f"self.{node.name} = nn.Parameter(torch.full((num_features,), {float(node.value or 0.0)!r}))")
    for moment in running:
        size = "num_features" if moment.per_channel else "1"
        init.append(f'self.register_buffer("{moment.name}", torch.full(({size},), {moment.initial!r}))')
    writer = _Forward(graph)
    body = [*_CHECK, "x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input", *writer.write()]
    y = writer.names[graph.output]
    if graph.domains[graph.output] != FULL:
        y = f"({y}).expand_as(x)"
    body.append(f"y = torch.addcmul(self.bias.view(1, -1, 1, 1), {y}, self.weight.view(1, -1, 1, 1))")
    body.append("return y.to(input.dtype)")
    text = "import torch\nfrom torch import Tensor, nn\n" + (_GROUP_MEAN if grouped else "")
    text += f"\n\nclass {class_name}(nn.Module):\n"
    text += textwrap.indent(f'"""{doc}"""\n\n' if doc else "", "    ")
    text += f"    def __init__({signature}) -> None:\n        super().__init__()\n"
    text += "".join(f"        {line}\n" for line in init)
    text += "\n    def forward(self, input: Tensor) -> Tensor:\n" + "".join(f"        {line}\n" for line in body)
    if running:
        text += (
            "\n    @torch.no_grad()\n    def _track(self, running: Tensor, moment: Tensor) -> None:\n"
            '        """Moves a running moment towards the one of this batch; eval mode uses it."""\n'
            "        running.lerp_(moment.detach().flatten().to(running), self.momentum)\n"
        )
    text += '\n    def extra_repr(self) -> str:\n        return f"{self.num_features}"\n'
    return text


@functools.lru_cache(maxsize=256)
def layer_class(graph: Graph) -> Any:
    """The class that ``layer_source`` writes for a canonical graph."""
    source = layer_source(graph)
    filename = f"<layersearch layer {structural_key(graph)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "layersearch.generated"}
    exec(compile(source, filename, "exec"), namespace)  # source holds registry rows and checked names and numbers only
    return type("Layer", (GeneratedLayer, namespace["Layer"]), {"_graph": graph, "_lowering": "torch"})


def build_torch_layer(graph: Graph, num_features: int, groups: int) -> nn.Module:
    """The layer in plain torch operations; ``graph`` is canonical."""
    cls = layer_class(graph)
    layer: nn.Module = cls(num_features, groups=groups) if graph.uses_group_moments() else cls(num_features)
    return layer


LOWERINGS.add("torch", Lowering("torch", build_torch_layer))

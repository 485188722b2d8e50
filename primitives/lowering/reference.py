"""The oracle: node by node at full size, as the paper defines the ops; any float dtype, no rounding tricks."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from layersearch.primitives.graph import CONST, INPUT, PARAM, Graph
from layersearch.primitives.lowering.base import LOWERINGS, Lowering
from layersearch.primitives.numerics import Numerics
from layersearch.primitives.op import OPS
from layersearch.primitives.running import running_moments

__all__ = ["ReferenceLayer", "evaluate"]

_MOMENTUM = 0.1


def evaluate(
    graph: Graph,
    x: Tensor,
    params: Mapping[str, Tensor],
    numerics: Numerics,
    batch_aggregate: Callable[[int, Tensor], Tensor | None] = lambda node, operand: None,
) -> Tensor:
    """Output of ``graph``.

    Args:
        graph: any graph; only active nodes are evaluated.
        x: ``[N, C, H, W]``.
        params: ``[C]`` for every active parameter.
        numerics: usually ``graph.numerics``.
        batch_aggregate: gives the value of a node that has a running moment; by default the moment of this batch.
    Returns: ``[N, C, H, W]``, dtype of ``x``.
    """
    values: dict[int, Tensor] = {}
    for i in graph.active:
        node = graph.nodes[i]
        if node.op == INPUT:
            values[i] = x
        elif node.op == CONST:
            values[i] = torch.full_like(x, node.value or 0.0)
        elif node.op == PARAM:
            values[i] = params[str(node.name)].view(1, -1, 1, 1).expand_as(x)
        else:
            args = [values[j] for j in node.args]
            tracked = batch_aggregate(i, args[0])
            values[i] = OPS[node.op].apply(*args, numerics=numerics) if tracked is None else tracked
    return values[graph.output]


class ReferenceLayer(nn.Module):
    """``graph(x)·γ + β`` by ``evaluate``, with running moments in eval mode, and for empty batches, which have none."""

    def __init__(self, graph: Graph, num_features: int, groups: int) -> None:
        super().__init__()
        self.graph = graph
        self.numerics = Numerics(graph.numerics.eps, graph.numerics.div_eps, graph.numerics.log_eps, groups)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.param_names: list[str] = []
        for node in graph.params():
            self.register_parameter(str(node.name), nn.Parameter(torch.full((num_features,), float(node.value or 0.0))))
            self.param_names.append(str(node.name))
        self.running = {m.node: m for m in running_moments(graph)}
        for moment in self.running.values():
            size = num_features if moment.per_channel else 1
            self.register_buffer(moment.name, torch.full((size,), moment.initial))

    def forward(self, x: Tensor) -> Tensor:
        params = {name: self.get_parameter(name) for name in self.param_names}
        y = evaluate(self.graph, x, params, self.numerics, self._batch_aggregate)
        return y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    def _batch_aggregate(self, i: int, operand: Tensor) -> Tensor | None:
        if i not in self.running:
            return None
        op = OPS[self.graph.nodes[i].op]
        running = self.get_buffer(self.running[i].name)
        if self.training and operand.numel() > 0:
            assert op.moment is not None
            moment = op.moment.of(operand, self.numerics.groups)
            with torch.no_grad():
                running.lerp_(moment.flatten()[: running.numel()].to(running), _MOMENTUM)
        else:
            moment = running.to(operand).view(1, -1, 1, 1)
        return op.reference(moment, self.numerics.guard(op.guard)).expand_as(operand)


LOWERINGS.add("reference", Lowering("reference", ReferenceLayer))

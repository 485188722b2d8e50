"""Running moments: what a layer with batch statistics remembers for eval mode."""

from dataclasses import dataclass

from layersearch.primitives.domain import Axes, meet
from layersearch.primitives.graph import LEAVES, Graph
from layersearch.primitives.op import OPS

__all__ = ["RunningMoment", "running_moments"]


@dataclass(frozen=True)
class RunningMoment:
    """Buffer of one batch aggregate: the moment itself (mean, mean square or variance), before any root.

    ``name`` is the buffer's name in the state dict, ``per_channel`` whether it has C elements or one, ``initial`` its
    value before the first batch.
    """

    node: int
    name: str
    per_channel: bool
    initial: float


def running_moments(graph: Graph) -> tuple[RunningMoment, ...]:
    """One buffer per active batch aggregate whose operand varies over the batch, in node order."""
    moments: list[RunningMoment] = []
    used: dict[str, int] = {}
    for i in graph.active:
        node = graph.nodes[i]
        moment = None if node.op in LEAVES else OPS[node.op].moment
        if moment is None or moment.axes is not Axes.BATCH:
            continue
        operand = graph.domains[node.args[0]]
        if meet(operand, moment.axes.target) == operand:
            continue
        used[moment.kind] = used.get(moment.kind, 0) + 1
        name = f"running_{moment.kind}" + (f"_{used[moment.kind]}" if used[moment.kind] > 1 else "")
        moments.append(RunningMoment(i, name, operand.c > 0, 0.0 if moment.kind == "mean" else 1.0))
    return tuple(moments)

"""What the forwards of a model do with norms and activations of modules other than their own."""

from collections.abc import Iterator, Sequence

from torch import nn

from layersearch.search.export._sites import NORMS
from layersearch.search.export._source import reached_in_source
from layersearch.search.export._trace import Trace, has_own_forward, kind, trace

__all__ = ["Reach", "own_children"]


class Reach:
    """Traces of all forwards of a model that have a norm below them, and what these reach in modules of others.

    ``others`` has, by the id of a module, the kind of another module than its owner whose forward calls it, or may, as
    far as its source tells. ``readers`` has, by the id of a norm, the kind of one that reads its parameters or buffers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._traces: dict[int, tuple[Trace, Trace] | str] = {}
        self.others: dict[int, str] = {}
        self.readers: dict[int, str] = {}
        norms = [m for m in model.modules() if isinstance(m, NORMS)]
        for owner in model.modules():
            if isinstance(owner, NORMS) or not any(isinstance(m, NORMS) for m in owner.modules()):
                continue
            if has_own_forward(owner):
                self._follow(owner, norms)

    def traces(self, owner: nn.Module) -> tuple[Trace, Trace] | str:
        """Of its forward in training and in eval mode, or why there are none."""
        return self._traces.get(id(owner), f"{kind(owner)} has no forward that could be read")

    def _follow(self, owner: nn.Module, norms: Sequence[nn.Module]) -> None:
        training, evaluation = trace(owner, True), trace(owner, False)
        reached: set[int] = set()
        for seen in (training, evaluation):
            if isinstance(seen, str):
                continue
            reached |= seen.called(owner)
            readers = [n for n in norms if any(id(t) in seen.read for t in (*n.parameters(), *n.buffers()))]
            self.readers |= {id(norm): kind(owner) for norm in readers}
        if any(isinstance(seen, str) or seen.asks for seen in (training, evaluation)):
            reached |= reached_in_source(owner)
        reached -= {id(child) for _, child in own_children(owner)}
        self.others |= dict.fromkeys(reached, kind(owner))
        if isinstance(training, str):
            self._traces[id(owner)] = training
        else:
            self._traces[id(owner)] = evaluation if isinstance(evaluation, str) else (training, evaluation)


def own_children(owner: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules that ``owner`` itself may call: its children, and those in its lists and dicts of modules."""
    for name, child in owner._modules.items():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from own_children(child, f"{prefix}{name}.")
        elif child is not None:
            yield prefix + name, child

"""Changes how the layers of a network are run, in the middle of its training: weights, buffers and hooks stay."""

import threading
from collections.abc import Mapping

import torch
from torch import nn

from layersearch.errors import KernelError
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering.base import build_layer

__all__ = ["SwappableLayers"]

_KEPT = ("_parameters", "_buffers", "training")


class SwappableLayers:
    """Makes all layers of one graph in one network, and swaps them for those of another lowering.

    Where a kernel cannot be built, the layers are (or stay) those of the ``torch`` lowering, and ``failure`` says why.

    Args:
        graph, groups: as in ``build_layer``.
        lowering: name in ``LOWERINGS``.
    """

    def __init__(self, graph: Graph, groups: int, lowering: str) -> None:
        self.graph, self.groups, self.lowering = graph, groups, lowering
        self.failure: str | None = None
        self._built: dict[int, tuple[nn.Module, int]] = {}
        self._preparing: threading.Thread | None = None

    def make(self, num_features: int) -> nn.Module:
        """The next layer of the network."""
        module = self._build(num_features)
        self._built[id(module)] = module, num_features
        return module

    def prepare(self, lowering: str) -> None:
        """Begins to build the kernels of ``lowering``, while the layers go on as they are."""
        self._preparing = threading.Thread(target=self._try, args=(lowering,), name="build-kernel", daemon=True)
        self._preparing.start()

    def swap(self, network: nn.Module, lowering: str) -> None:
        """Puts layers of ``lowering`` in place of all that were made, and waits for their kernels."""
        if self._preparing is not None:
            self._preparing.join()
            self._preparing = None
        if self.failure is not None:
            return
        self.lowering = lowering
        named = network.named_modules(remove_duplicate=False)  # a layer in two places gets one successor
        places = [(name, module) for name, module in named if id(module) in self._built]
        successors: dict[nn.Module, nn.Module] = {}
        for _, module in places:
            if module not in successors:
                successors[module] = self._successor(module)
        _put(network, {name: successors[module] for name, module in places})

    @torch.no_grad()
    def prepare_evaluation(self, network: nn.Module) -> None:
        """Builds what evaluating needs; where that cannot be built, the layers are those of ``torch`` from now on."""
        module, num_features = next(iter(self._built.values()))
        like = next(module.parameters())
        was_training, failure = module.training, None
        try:
            module.eval()(torch.zeros(1, num_features, 1, 1, dtype=like.dtype, device=like.device))
        except KernelError as error:
            failure = str(error)
        module.train(was_training)
        if failure is not None:
            self.swap(network, "torch")
            self.failure = failure

    def _successor(self, old: nn.Module) -> nn.Module:
        _, num_features = self._built.pop(id(old))
        new = self.make(num_features)
        # The dictionaries themselves: handles of hooks refer to them.
        vars(new).update({name: part for name, part in vars(old).items() if name in _KEPT or "hook" in name})
        return new

    def _build(self, num_features: int) -> nn.Module:
        if self.failure is None:
            try:
                return build_layer(self.graph, num_features, lowering=self.lowering, groups=self.groups)
            except KernelError as error:
                self.failure = str(error)
        return build_layer(self.graph, num_features, lowering="torch", groups=self.groups)

    def _try(self, lowering: str) -> None:
        """A layer holds the kernels of its graph in this process, so those to come need not be built."""
        try:
            build_layer(self.graph, 1, lowering=lowering, groups=self.groups)
        except KernelError as error:
            self.failure = str(error)


def _put(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        owner, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(owner), attribute, module)

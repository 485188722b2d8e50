"""Going back to an early state of a model, all of it: what a selection is trained again from."""

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError

__all__ = ["Rewind"]


class Rewind:
    """A copy of every parameter and every buffer of a module, those that no state dict holds included.

    Restoring makes no optimiser: moments belong to the trajectory that is left, so a fresh one must be made.
    """

    def __init__(self, module: nn.Module) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in _tensors(module).items()}

    @torch.no_grad()
    def restore(self, module: nn.Module) -> None:
        """Writes the copy into ``module`` in place, drops its gradients. Raises: BadInputError for another module."""
        mine = _tensors(module)
        for name in sorted({*mine, *self.tensors}):
            if name not in mine or name not in self.tensors or mine[name].shape != self.tensors[name].shape:
                raise BadInputError(f"a rewind must be of the same module, '{name}' differs; make a new one")
        for name, tensor in mine.items():
            tensor.copy_(self.tensors[name])
        for parameter in module.parameters():
            parameter.grad = None


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}

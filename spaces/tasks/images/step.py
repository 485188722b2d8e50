"""One training step: forward, loss, backward and update, written so that a CUDA graph can hold it.

On a GPU nothing in it waits for the device; the learning rate is a tensor there.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from layersearch.spaces.tasks.images.settings import ImageSettings

__all__ = ["TrainingStep", "make_optimizer", "update"]

MOMENTUM = "momentum_buffer"  # torch.optim.SGD's name for it


class TrainingStep:
    """A step in two halves, between which the loss can be looked at.

    Args:
        model: in training mode, with all parameters on one device.
        optimizer: of ``make_optimizer``.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.SGD) -> None:
        self.model, self.optimizer = model, optimizer
        self._loss: Tensor | None = None

    def look(self, x: Tensor, y: Tensor) -> Tensor:
        """Forward. Returns mean cross-entropy in nats and number of right answers, ``[2]``, on the device."""
        logits = self.model(x)
        self._loss = F.cross_entropy(logits, y)
        right = (logits.detach().argmax(1) == y).sum()
        return torch.stack([self._loss.detach(), right.to(self._loss.dtype)])

    def learn(self, rate: Tensor) -> None:
        """Backward of the last look, and the update with learning rate ``rate`` ``[]``."""
        assert self._loss is not None, "a step looks before it learns"
        self.optimizer.zero_grad(set_to_none=True)
        self._loss.backward()  # type: ignore[no-untyped-call]
        self._loss = None
        update(self.optimizer, rate)

    def momentum(self) -> list[Tensor]:
        """The momentum there is, in the order of the parameters."""
        return [state[MOMENTUM] for state in self._states()]

    def clear_momentum(self, but: Sequence[Tensor]) -> None:
        """Sets all momentum ``but`` some to 0, where it lies."""
        for momentum in self.momentum():
            if not any(momentum is kept for kept in but):
                momentum.zero_()

    def forget_momentum(self, but: Sequence[Tensor]) -> None:
        """Removes all momentum ``but`` some."""
        for state in self._states():
            if not any(state[MOMENTUM] is kept for kept in but):
                del state[MOMENTUM]

    def _states(self) -> list[dict[str, Tensor]]:
        """Those of the optimiser that hold momentum."""
        states = (self.optimizer.state.get(parameter, {}) for parameter in self.model.parameters())
        return [state for state in states if state.get(MOMENTUM) is not None]

    def state(self) -> list[Tensor]:
        """Everything that a step changes: weights, buffers and momentum; not copied."""
        return [*(p.detach() for p in self.model.parameters()), *self.model.buffers(), *self.momentum()]


def make_optimizer(model: nn.Module, settings: "ImageSettings") -> torch.optim.SGD:
    """SGD with Nesterov momentum.

    Vectors - biases and the parameters of a layer, in whatever shape they broadcast - are not decayed.
    """
    weights: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in model.parameters():
        (weights if sum(side > 1 for side in parameter.shape) > 1 else vectors).append(parameter)
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=True)


def update(optimizer: torch.optim.SGD, rate: Tensor) -> None:
    """A step of ``optimizer``; on a GPU without reading ``rate`` there, which torch's own step does.

    Both round differently in the last bit. A training on a GPU has the second form throughout, in a graph or not.
    """
    if rate.device.type == "cpu":
        for group in optimizer.param_groups:
            group["lr"] = rate.item()
        optimizer.step()
    else:
        update_on_device(optimizer, rate)


@torch.no_grad()
def update_on_device(optimizer: torch.optim.SGD, rate: Tensor) -> None:
    """b ← μ·b + (g + λ·w); w ← w - η·(g + λ·w + μ·b), with b = 0 at first: SGD with Nesterov momentum."""
    for group in optimizer.param_groups:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            continue
        gradients: list[Tensor] = [p.grad for p in parameters]
        if group["weight_decay"]:
            gradients = _list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        buffers = [_momentum_of(optimizer, p) for p in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        ahead = _list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))
        torch._foreach_mul_(ahead, rate.to(parameters[0].dtype))
        torch._foreach_sub_(parameters, ahead)


def _momentum_of(optimizer: torch.optim.SGD, parameter: Tensor) -> Tensor:
    state = optimizer.state[parameter]
    if state.get(MOMENTUM) is None:
        state[MOMENTUM] = torch.zeros_like(parameter)
    momentum: Tensor = state[MOMENTUM]
    return momentum


def _list(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list(tensors)

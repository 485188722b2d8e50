"""One training step: forward, loss, backward and update, written so that a CUDA graph can hold it.

On a GPU nothing in it waits for the device; the learning rate is a tensor there.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.spaces.tasks.decay import undecayed

if TYPE_CHECKING:
    from layersearch.spaces.tasks.images.settings import ImageRecipe

__all__ = [
    "COUNT",
    "FIRST",
    "KEPT",
    "MOMENTUM",
    "SECOND",
    "TrainingStep",
    "make_optimizer",
    "update",
    "update_on_device",
]

MOMENTUM = "momentum_buffer"  # torch.optim.SGD's name for it
FIRST, SECOND, COUNT = "exp_avg", "exp_avg_sq", "step"  # torch.optim.AdamW's

KEPT = (MOMENTUM, FIRST, SECOND, COUNT)
"""Names of the tensors that an optimiser has for a parameter."""

_SECOND_BETA = 0.999


class TrainingStep:
    """A step in two halves, between which the loss can be looked at.

    Args:
        model: in training mode, with all parameters on one device.
        optimizer: of ``make_optimizer``.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
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
        """What the optimiser has kept of earlier steps, in the order of the parameters."""
        return [state[name] for state, name in self._kept()]

    def clear_momentum(self, but: Sequence[Tensor]) -> None:
        """Sets all momentum ``but`` some to 0, where it lies."""
        for momentum in self.momentum():
            if not any(momentum is kept for kept in but):
                momentum.zero_()

    def forget_momentum(self, but: Sequence[Tensor]) -> None:
        """Removes all momentum ``but`` some."""
        for state, name in self._kept():
            if not any(state[name] is kept for kept in but):
                del state[name]

    def _kept(self) -> list[tuple[dict[str, Tensor], str]]:
        """States of the optimiser, each with the name of a tensor in it."""
        states = (self.optimizer.state.get(parameter, {}) for parameter in self.model.parameters())
        return [(state, name) for state in states for name in KEPT if state.get(name) is not None]

    def state(self) -> list[Tensor]:
        """Everything that a step changes: weights, buffers and momentum; not copied."""
        return [*(p.detach() for p in self.model.parameters()), *self.model.buffers(), *self.momentum()]


def make_optimizer(model: nn.Module, settings: "ImageRecipe") -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, as the recipe says.

    Vectors - biases and the parameters of a layer, in whatever shape they broadcast - are not decayed, nor are those
    that the model, or a part of it, names as ``undecayed``.
    """
    exempt = undecayed(model)
    weights: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        decays = sum(side > 1 for side in parameter.shape) > 1 and name not in exempt
        (weights if decays else vectors).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    rate, momentum = settings.learning_rate, settings.momentum
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, _SECOND_BETA))
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True)


def update(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
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
def update_on_device(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """A step with learning rate ``rate`` ``[]``, of which nothing is read on the host."""
    one_group = _adamw_on_device if isinstance(optimizer, torch.optim.AdamW) else _sgd_on_device
    for group in optimizer.param_groups:
        parameters = [p for p in group["params"] if p.grad is not None]
        if parameters:
            one_group(optimizer, group, parameters, rate.to(parameters[0].dtype))


def _sgd_on_device(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameters: list[Tensor], rate: Tensor
) -> None:
    """b ← μ·b + (g + λ·w); w ← w - η·(g + λ·w + μ·b), with b = 0 at first: SGD with Nesterov momentum."""
    gradients = _gradients(parameters)
    if group["weight_decay"]:
        gradients = _list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
    buffers = [_state_of(optimizer, p, MOMENTUM, p) for p in parameters]
    torch._foreach_mul_(buffers, group["momentum"])
    torch._foreach_add_(buffers, gradients)
    ahead = _list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))
    torch._foreach_mul_(ahead, rate)
    torch._foreach_sub_(parameters, ahead)


def _adamw_on_device(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameters: list[Tensor], rate: Tensor
) -> None:
    """w ← (1 - η·λ)·w - η·(m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + ε), with the means m of g and v of g²: AdamW."""
    gradients, (beta, second_beta) = _gradients(parameters), group["betas"]
    first = [_state_of(optimizer, p, FIRST, p) for p in parameters]
    second = [_state_of(optimizer, p, SECOND, p) for p in parameters]
    counts = [_state_of(optimizer, p, COUNT, p.new_zeros((), dtype=torch.float32)) for p in parameters]
    torch._foreach_add_(counts, 1)
    torch._foreach_mul_(first, beta)
    torch._foreach_add_(first, gradients, alpha=1 - beta)
    torch._foreach_mul_(second, second_beta)
    torch._foreach_addcmul_(second, gradients, gradients, 1 - second_beta)
    if group["weight_decay"]:
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
    for p, m, v, count in zip(parameters, first, second, counts, strict=True):
        below = (v / (1 - second_beta**count)).sqrt().add_(group["eps"])
        p.sub_(rate / (1 - beta**count) * m / below)


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _state_of(optimizer: torch.optim.Optimizer, parameter: Tensor, name: str, like: Tensor) -> Tensor:
    state = optimizer.state[parameter]
    if state.get(name) is None:
        state[name] = torch.zeros_like(like)
    found: Tensor = state[name]
    return found


def _list(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list(tensors)

"""Norms, activations, and the places of a model where one of each can be replaced together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _LazyNormBase, _NormBase

__all__ = ["FUNCTIONS", "METHODS", "NORMS", "Forward", "Site", "has_hooks", "is_activation", "runs_as", "why_never"]

Forward = Callable[..., Any]

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
_OTHER_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
)  # fmt: skip
"""Sigmoid, tanh and the like are not here: after a norm they are gates, or bound an output."""
_NAMES = ("relu", "relu_", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish")
FUNCTIONS: Mapping[Any, str] = {
    **{getattr(F, name): f"F.{name}" for name in _NAMES},
    torch.relu: "torch.relu",
    torch.relu_: "torch.relu_",
}
METHODS = ("relu", "relu_")


def is_activation(module: nn.Module) -> bool:
    return runs_as(module, _ACTIVATIONS)


def runs_as(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether it is one of these, or of a subclass, with the forward that it has from there."""
    forwards = [k.forward for k in kinds if isinstance(module, k)]
    return type(module).forward in forwards and "forward" not in vars(module)


def why_never(module: nn.Module) -> str | None:
    """Why a norm of this kind is never replaced; None if it may be, or is no norm."""
    if isinstance(module, _LazyNormBase):
        return "it has no channels yet; run a batch through the model first"
    if isinstance(module, torch.jit.ScriptModule):
        kind = getattr(nn, str(module.original_name), None)
        is_norm = isinstance(kind, type) and issubclass(kind, NORMS + _OTHER_NORMS)
        return "it is compiled by torch.jit; swap before that" if is_norm else None
    if isinstance(module, _OTHER_NORMS) and not isinstance(module, NORMS):
        return "only BatchNorm2d is replaced"
    return None


def has_hooks(module: nn.Module) -> bool:
    found = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(found)


@dataclass(frozen=True)
class Site:
    """A norm and the activation that alone reads it.

    Args:
        name: qualified name of the norm in the model.
        owner: module that applies both; ``path`` leads from it to the norm, ``slots`` to what becomes an ``Identity``.
        activation: for the report.
        forward: the owner's forward without the activation, where no slot does it.
    """

    name: str
    norm: nn.Module
    owner: nn.Module
    path: str
    slots: tuple[str, ...]
    activation: str
    forward: Forward | None = None

    def apply(self, layer: nn.Module) -> None:
        _set(self.owner, self.path, layer)
        for slot in self.slots:
            _set(self.owner, slot, nn.Identity())
        kind = type(self.owner)
        if self.forward is not None and kind.forward is not self.forward:
            # A subclass for this instance, as torch's parametrizations do it: children, hooks and isinstance stay.
            members = {"forward": self.forward, "__module__": kind.__module__}
            self.owner.__class__ = type(kind.__name__, (kind,), members)


def _set(owner: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    owner.get_submodule(parent)._modules[name] = module

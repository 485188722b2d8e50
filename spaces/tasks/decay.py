"""Which parameters weight decay leaves alone because a part of the model says so."""

from typing import cast

from torch import nn

__all__ = ["undecayed"]


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters in ``no_weight_decay()`` of ``model``, as timm's models have it, or else of its parts."""
    if hasattr(model, "no_weight_decay"):
        return cast("set[str]", model.no_weight_decay())  # type: ignore[operator]
    return {f"{name}.{own}" for name, part in model.named_children() for own in undecayed(part)}

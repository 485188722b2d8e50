"""Which parameters weight decay leaves alone because a part of the model says so."""

from typing import cast

from torch import nn

__all__ = ["undecayed"]


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters that ``model`` has in ``no_weight_decay()``, as timm's models do; else its parts do."""
    if hasattr(model, "no_weight_decay"):
        return cast("set[str]", model.no_weight_decay())  # type: ignore[operator]
    return {f"{name}.{own}" for name, part in model.named_children() for own in undecayed(part)}

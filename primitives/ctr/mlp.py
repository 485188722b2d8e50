"""The multi-layer perceptron of click-through models."""

from collections.abc import Callable, Sequence

from torch import nn

from layersearch.primitives.ctr.dice import Dice
from layersearch.primitives.ctr.dropout import Dropout
from layersearch.primitives.registry import Registry

__all__ = ["ACTIVATIONS", "mlp"]

ACTIVATIONS: Registry[Callable[[int], nn.Module]] = Registry("activation")
ACTIVATIONS.add("dice", Dice)
ACTIVATIONS.add("prelu", lambda channels: nn.PReLU(channels))
ACTIVATIONS.add("relu", lambda _: nn.ReLU())
ACTIVATIONS.add("sigmoid", lambda _: nn.Sigmoid())


def mlp(
    n_in: int,
    hidden: Sequence[int],
    n_out: int | None,
    *,
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear, (batch norm,) activation (, dropout) per hidden width; a last Linear if ``n_out`` is given.

    Raises: UnknownNameError for the activation.
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(n_in, width))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(ACTIVATIONS[activation](width))
        if dropout:
            layers.append(Dropout(dropout))
        n_in = width
    if n_out is not None:
        layers.append(nn.Linear(n_in, n_out))
    return nn.Sequential(*layers)

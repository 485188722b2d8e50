"""Dice, the activation that bends where its data lie."""

import torch
from torch import Tensor, nn

__all__ = ["Dice"]


class Dice(nn.Module):
    """``f(x) = p x + (1 - p) α x``, ``p = σ((x - E[x]) / √(Var[x] + ε))``, per channel.

    Source: DIN, arXiv:1706.06978, eq. 3. Moments are those of the batch in training and running ones in evaluation; the
    published code never updates its running moments, nor uses those of the batch, so its ``p`` is ``σ(x)``.

    Shapes: ``[N, channels]`` -> the same. Rows that are padding must be left out by the caller: they would be counted.
    """

    def __init__(self, channels: int, eps: float = 1e-8, momentum: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=eps, momentum=momentum, affine=False)
        self.alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Moments of one row are no moments: it is judged by the running ones.
        batch = self.training and len(x) > 1
        norm = self.norm
        if batch:
            normed = norm(x)
        else:
            normed = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, eps=norm.eps)
        p = torch.sigmoid(normed)
        return x * (p + (1 - p) * self.alpha)

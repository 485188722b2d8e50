"""The stability test of the paper: can a small push of the weights make the gradients explode?

arXiv:2004.02967, §3.3: maximise ‖∂ℓ/∂θ‖₂ over θ by gradient ascent, at most 100 steps on a fixed batch, and reject the
layer if the norm passes 1e8. Step size, batch and network are not published; ours are settings, calibrated so that
BN-ReLU, GN-ReLU and the EvoNorms pass by orders of magnitude and layers without normalization fail.
"""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Stability", "largest_gradient_norm"]


@dataclass(frozen=True)
class Stability:
    """``norm``: largest gradient norm seen (inf if anything was not finite); ``step`` at which; ``timed_out``."""

    norm: float
    step: int
    timed_out: bool = False


def largest_gradient_norm(
    network: nn.Module, x: Tensor, y: Tensor, *, steps: int, rate: float, limit: float, deadline: float | None = None
) -> Stability:
    """Ascends ``‖∂ℓ/∂θ‖₂`` from the weights of ``network`` (which are changed), stopping once it passes ``limit``.

    Args:
        network: in training mode, so that moments over the batch are those of ``x``.
        x: ``[N, C, H, W]``, one fixed batch.
        y: ``[N]`` class numbers.
        steps: ascent steps.
        rate: step size along the gradient of the norm.
        limit: the ascent stops above it.
        deadline: ``time.monotonic()`` after which it gives up.
    """
    params = [p for p in network.parameters() if p.requires_grad]
    largest, at = 0.0, 0
    for step in range(steps + 1):
        loss = F.cross_entropy(network(x), y)
        gradients = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
        norm = torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()
        value = float(norm.detach())
        if not math.isfinite(value):
            return Stability(math.inf, step)
        if value > largest:
            largest, at = value, step
        if largest > limit or step == steps:
            break
        if deadline is not None and time.monotonic() > deadline:
            return Stability(largest, at, timed_out=True)
        ascent = torch.autograd.grad(norm, params, allow_unused=True)
        with torch.no_grad():
            for p, direction in zip(params, ascent, strict=True):
                if direction is not None:
                    p.add_(direction, alpha=rate)
    return Stability(largest, at)

"""Whether the class of an exported file is the network it stands for: what is checked after every export."""

import torch
from torch import Tensor, nn

__all__ = ["exported_name", "largest_difference"]

_DRAWN = ("weight", "bias", "position")
"""Ends of the names of tensors that start at random."""


def exported_name(name: str) -> str:
    """Name in the state dict of ``Model`` of a tensor of ours."""
    return "layers." + name.replace(".functions.", ".").replace(".domain.", ".map_")


def largest_difference(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """Largest difference of outputs and input gradients, in eval mode and after a training step.

    Relative to 1 + size of the value; infinite if names, shapes or the tensors of a basis differ.

    Args:
        ours: the network in float64, with weights to compare with.
        theirs: the file's ``Model`` in float64, freshly made; gets those weights.
        x: inputs.
    """
    fresh = {name: tensor for name, tensor in theirs.state_dict().items() if name.startswith("layers.")}
    state = {exported_name(name): tensor for name, tensor in ours.state_dict().items()}
    if sorted(fresh) != sorted(state) or any(fresh[name].shape != state[name].shape for name in state):
        return float("inf")
    own = {name for name in state if not name.endswith(_DRAWN)}
    if not all(torch.allclose(fresh[name].float(), state[name].float(), rtol=1e-6) for name in own):
        return float("inf")  # the tensors of the basis do not start alike
    worst = 0.0
    theirs.load_state_dict(theirs.state_dict() | state)
    with torch.no_grad():  # a tracked range that ends at a sample has a kink there, on whose sides rounding decides
        ours.train()(0.7 * x), theirs.train()(0.7 * x)
    for training in (True, False):
        ours.train(training), theirs.train(training)
        a, b = _run(ours, x), _run(theirs, x)
        worst = max(worst, *(float(((p - q).abs() / (1 + p.abs())).max()) for p, q in zip(a, b, strict=True)))
    return worst


def _run(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and gradient by the inputs."""
    x = x.clone().requires_grad_(True)
    y: Tensor = module(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    return y.detach(), gradient

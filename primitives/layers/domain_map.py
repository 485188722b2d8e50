"""How inputs reach the interval of a basis: by tanh, layer norm, running range, clamp, softplus, or not at all."""

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.basis import DomainName
from layersearch.primitives.registry import unknown_name

__all__ = ["DOMAINS", "DomainMap"]

DOMAINS: tuple[DomainName, ...] = ("clamp", "layernorm", "minmax", "none", "softplus", "tanh")
_EPS = 1e-5


class DomainMap(nn.Module):
    """``[..., I] -> [..., I]``, towards the interval [low, high] of middle m and half width h.

    - ``tanh``: m + h tanh((x - m) / h); slope 1 in the middle, never outside.
    - ``layernorm``: normalised over I without an affine part; ±2 standard deviations reach the ends.
    - ``minmax``: by the range of each feature, tracked in training (weight ``momentum`` on the batch at hand) and fixed
      in evaluation, so that the output of a sample does not depend on the others; values outside are clamped.
    - ``clamp``: the identity inside, no gradient outside.
    - ``softplus``: low + log(1 + e^x), for half lines.
    - ``none``: the identity; what a basis does outside its interval is its own matter.

    Raises: UnknownNameError; BadInputError for ``layernorm`` of one feature, which would map everything to 0.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self, kind: str, interval: tuple[float, float], in_features: int, momentum: float = 0.1) -> None:
        super().__init__()
        if kind not in DOMAINS:
            raise unknown_name("domain map", kind, sorted(DOMAINS))
        if kind == "layernorm" and in_features < 2:
            raise BadInputError("layernorm of 1 feature maps every input to 0; use domain='tanh' or 'minmax'")
        self.kind, self.interval, self.momentum = kind, interval, momentum
        if kind == "minmax":
            self.register_buffer("low", torch.zeros(in_features))
            self.register_buffer("high", torch.ones(in_features))
            self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.interval
        middle, half = (low + high) / 2, (high - low) / 2
        if self.kind == "tanh":
            if middle == 0 and half == 1:
                return torch.tanh(x)
            return middle + half * torch.tanh((x - middle) / half)
        if self.kind == "layernorm":
            return middle + half / 2 * torch.nn.functional.layer_norm(x, x.shape[-1:], eps=_EPS)
        if self.kind == "minmax":
            if self.training:
                self._track(x.detach())
            start, width = self.low.to(x.dtype), (self.high - self.low).to(x.dtype).clamp_min(_EPS)
            return (low + (high - low) * (x - start) / width).clamp(low, high)
        if self.kind == "clamp":
            return x.clamp(low, high)
        if self.kind == "softplus":
            return low + torch.nn.functional.softplus(x)
        return x

    def _track(self, x: Tensor) -> None:
        """Moves the range towards that of the batch; the first batch sets it."""
        if x.numel() == 0:
            return
        low, high = x.reshape(-1, x.shape[-1]).to(self.low.dtype).aminmax(dim=0)
        step = torch.where(self.seen, self.momentum, 1.0).to(self.low.dtype)
        self.low.lerp_(low, step)
        self.high.lerp_(high, step)
        self.seen.fill_(True)

    def extra_repr(self) -> str:
        return f"{self.kind}, [{self.interval[0]:g}, {self.interval[1]:g}]"

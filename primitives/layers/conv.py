"""KAN convolutions: the basis of every pixel once, then one ordinary convolution over K times the channels."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layersearch.errors import BadInputError
from layersearch.primitives.basis import Basis
from layersearch.primitives.layers._kan import KANLayer, kernel_of, whole
from layersearch.primitives.layers.functions import check_width

__all__ = ["KANConv1d", "KANConv2d"]


class _KANConv(KANLayer):
    """``[N, C, *S] -> [N, O, *S']``; see ``KANConv2d``."""

    dimensions: int
    convolve: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        basis: str | Basis = "chebyshev",
        base: str | None = "silu",
        domain: str | None = None,
        init: str = "variance",
        power: tuple[float, float] = (0.25, 1.75),
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        in_channels, out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        groups = whole("groups", groups)
        if in_channels % groups or out_channels % groups:
            raise BadInputError(
                f"groups must divide in_channels and out_channels, got {groups} for {in_channels} and {out_channels}"
            )
        kernel = kernel_of(kernel_size, self.dimensions)
        area = math.prod(kernel)
        fan = (in_channels // groups * area, out_channels // groups * area)
        super().__init__(
            in_channels, out_channels, in_channels // groups, kernel, fan, basis, base, domain, init, bias, power,
            generator, device, dtype, settings,
        )  # fmt: skip
        self.in_channels, self.out_channels, self.kernel_size, self.groups = in_channels, out_channels, kernel, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return type(self).convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        check_width(x, self.in_channels, 1, self.dimensions + 2)
        features = self.functions.columns(x.movedim(1, -1))
        if self.groups > 1:
            each = (self.groups, features.shape[-1] // self.groups)
            features = features.reshape(*features.shape[:-1], *each).transpose(-2, -3).flatten(-2)
        # In two dimensions this view has the channels-last memory format: no copy on the way to the convolution.
        y = self._conv(features.flatten(-2).movedim(-1, 1), self.weight.flatten(1, 2), self.bias)
        if self.base is not None and self.base_weight is not None:
            y = y + self._conv(self.base(x), self.base_weight, None)
        return y

    def _samples(self, x: Tensor) -> Tensor:
        check_width(x, self.in_channels, 1, self.dimensions + 2)
        return x.movedim(1, -1).reshape(-1, self.in_channels)

    def _by_edge(self, weight: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Rows are output channels of a group × places of the kernel; inputs run over all groups."""
        groups, kernel, channels = self.groups, self.kernel_size, self.in_channels // self.groups
        outputs = self.out_channels // groups
        area = math.prod(kernel)
        split = weight.reshape(groups, outputs, -1, channels, area)
        edges = split.permute(1, 4, 2, 0, 3).reshape(outputs * area, -1, groups * channels)

        def back(fitted: Tensor) -> Tensor:
            parts = fitted.reshape(outputs, area, -1, groups, channels).permute(3, 0, 2, 4, 1)
            return parts.reshape(groups * outputs, -1, channels, *kernel)

        return edges, back

    def extra_repr(self) -> str:
        shape = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{shape}, padding={self.padding}, groups={self.groups}, {super().extra_repr()}"


class KANConv1d(_KANConv):
    """``KANConv2d`` for sequences, ``[N, C, L] -> [N, O, L']``."""

    dimensions = 1
    convolve = staticmethod(F.conv1d)


class KANConv2d(_KANConv):
    """Convolution whose kernel has a function in place of every number, ``[N, C, H, W] -> [N, O, H', W']``.

    ``y_o = sum_{c,p} (sum_k w[o,k,c,p] f_k(d(x_{c,p})) + v[o,c,p] b(x_{c,p})) + bias_o`` over the places p of the
    kernel. The functions of a pixel are evaluated once, not once for each of the places it is seen at, as unfolding
    would.

    Padding adds places without features, so that nothing is summed there; published layers that unfold first add
    pixels of value 0, at which basis functions are not 0. ``layernorm`` normalises each pixel over its channels.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as in ``torch.nn.Conv2d``.
        basis, base, domain, init, power, generator, **settings: as in ``KANLinear``.
    Raises: UnknownNameError or BadInputError, both with exit code 2.
    """

    dimensions = 2
    convolve = staticmethod(F.conv2d)

"""Group-rational KAN (GR-KAN): safe Padé activations shared by groups of channels, and the layers around them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.bases.rational import group_rational
from layersearch.primitives.layers._kan import whole
from layersearch.primitives.layers._lowered import lowering_name
from layersearch.primitives.layers._quotient import quotient
from layersearch.primitives.layers.functions import check_width
from layersearch.primitives.layers.init import normal_quantiles
from layersearch.primitives.rational_fit import RationalFit, shipped_fit

__all__ = ["GRKANMLP", "GRKANLinear", "GroupRational", "variance_gain"]


class GroupRational(nn.Module):
    """``F(x) = sum_{i<=m} a_i x^i / (1 + |sum_{j<m} b_j x^j|)`` with the b of each group of channels; same shape out.

    It starts as the named activation, to the error of ``fit`` on its window (5/4: GELU 4e-3, SiLU 1.2e-3, tanh 9e-4 on
    [-8, 8]; ReLU 5e-2 on [-4, 4]). Half precision is computed in float32 and rounded once. Arguments beyond
    ``rational_reach`` (2²⁰ for degree 5) are clamped.

    Args:
        channels: C, a multiple of ``groups``.
        groups: number of denominators; the numerator is shared by all.
        start: name of an activation, or a ``RationalFit``.
        degree: m of a named start: 3, 5, 7 or 9.
        dim: axis of the channels: -1, or 1 for ``[N, C, H, W]``.
        lowering: ``torch``; ``c`` or ``triton``, fused kernels for float32 and half precision on the CPU or on CUDA, by
            which only x is kept for the backward pass; ``auto`` takes the kernels where they can be had. Where those
            named cannot, and for float64 and double backward, it is ``torch``.
    Raises: BadInputError or UnknownNameError.

    Source: KAT, arXiv:2409.10594.
    """

    def __init__(
        self,
        channels: int,
        groups: int = 8,
        start: str | RationalFit = "silu",
        *,
        degree: int = 5,
        dim: int = -1,
        lowering: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        channels, groups = whole("channels", channels), whole("groups", groups)
        if channels % groups:
            raise BadInputError(f"groups must divide the channels, got {groups} for {channels}")
        fit = shipped_fit(start, degree) if isinstance(start, str) else start
        self.channels, self.groups, self.dim, self.degree = channels, groups, dim, fit.degree
        self.start = start if isinstance(start, str) else "fit"
        self.lowering = lowering_name(lowering)
        like: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        self.numerator = nn.Parameter(torch.tensor(fit.numerator, **like))
        self.denominator = nn.Parameter(torch.tensor(fit.denominator, **like).repeat(groups, 1))

    def forward(self, x: Tensor) -> Tensor:
        check_width(x, self.channels, self.dim)
        return quotient(x, self.numerator, self.denominator, self.dim, self.lowering)

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}, degree={self.degree}, start={self.start}, dim={self.dim}"


def variance_gain(rational: GroupRational) -> float:
    """``α = Var[x] / E[F(x)²]`` for x ~ N(0, 1), averaged over the groups; 2.35 for GELU, 2.82 for SiLU.

    Weights of variance α / I after the rational keep the second moment. Source: arXiv:2409.10594, eq. 13.
    """
    x = normal_quantiles().unsqueeze(-1).expand(-1, rational.groups)
    with torch.no_grad():
        f = group_rational(x, rational.numerator.double().cpu(), rational.denominator.double().cpu())
    return 1 / float(f.square().mean())


class GRKANLinear(nn.Module):
    """``y = W F(x) + c``, F a ``GroupRational``; ``[..., I] -> [..., O]``.

    Parameters: I O + O + (m + 1) + groups (m - 1).

    ``W ~ N(0, α / I)`` with α of ``variance_gain``: the second moment of N(0, 1) inputs is kept. The activation comes
    before the matrix, as in KAT. Arguments as in ``GroupRational``; ``generator`` is the source of the random start.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        groups: int = 8,
        start: str | RationalFit = "silu",
        *,
        degree: int = 5,
        bias: bool = True,
        lowering: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_features, out_features = whole("in_features", in_features), whole("out_features", out_features)
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.rational = GroupRational(in_features, groups, start, degree=degree, lowering=lowering, **like)
        self.linear = nn.Linear(in_features, out_features, bias=bias, **like)
        if self.linear.weight.is_meta:
            return
        with torch.no_grad():
            deviation = math.sqrt(variance_gain(self.rational) / in_features)
            self.linear.weight.normal_(0.0, deviation, generator=generator)
            if bias:
                self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.rational(x))
        return y


class GRKANMLP(nn.Module):
    """The feed-forward part of KAT: F₁ (identity) → linear → F₂ → linear; ``[..., I] -> [..., O]``.

    Args:
        in_features, hidden_features, out_features: I, H, O; O is I by default.
        groups: of both rationals.
        start: of F₂; F₁ starts as the identity, which is exact.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int | None = None,
        groups: int = 8,
        start: str | RationalFit = "silu",
        *,
        degree: int = 5,
        bias: bool = True,
        dropout: float = 0.0,
        lowering: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        like: dict[str, Any] = {
            "degree": degree,
            "bias": bias,
            "lowering": lowering,
            "generator": generator,
            "device": device,
            "dtype": dtype,
        }
        self.fc1 = GRKANLinear(in_features, hidden_features, groups, "identity", **like)
        self.fc2 = GRKANLinear(hidden_features, out_features or in_features, groups, start, **like)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.fc2(self.dropout(self.fc1(x))))
        return y

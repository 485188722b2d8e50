"""KAN layers on vectors: one basis, one matrix product."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layersearch.primitives.basis import Basis
from layersearch.primitives.layers._kan import KANLayer, whole

__all__ = ["KANLinear"]


class KANLinear(KANLayer):
    """``y_o = sum_i (sum_k w[o,k,i] f_k(d(x_i)) + v[o,i] b(x_i)) + c_o``; ``[..., I] -> [..., O]``.

    The features ``f_k(d(x_i))`` are made once per input and meet all outputs in one matrix product; no tensor of the
    size of batch × edges is ever built.

    Args:
        in_features, out_features: I, O.
        basis: name in ``BASES`` or a configured row.
        base: activation b of the base branch, or None for no such branch.
        domain: map d of the inputs; that of the basis by default.
        init: ``variance``, ``branch``, ``glorot`` or ``power``, see ``layers.init.scales``.
        bias: whether there is a c.
        power: exponents of ``init="power"``.
        generator: source of the random start; torch's own by default.
        device: of the tensors; ``meta`` makes a layer without numbers, for ``to_empty`` and ``load_state_dict``.
        **settings: of the basis, e.g. ``degree=5`` or ``grid=8``; and ``lowering``, see ``BasisFunctions``.
    Raises: UnknownNameError or BadInputError, both with exit code 2.

    >>> layer = KANLinear(3, 2, basis="chebyshev", degree=5)
    >>> layer(torch.zeros(7, 3)).shape
    torch.Size([7, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: str | Basis = "chebyshev",
        *,
        base: str | None = "silu",
        domain: str | None = None,
        init: str = "variance",
        bias: bool = True,
        power: tuple[float, float] = (0.25, 1.75),
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        in_features, out_features = fan = whole("in_features", in_features), whole("out_features", out_features)
        super().__init__(
            in_features, out_features, in_features, (), fan, basis, base, domain, init, bias, power, generator, device,
            dtype, settings,
        )  # fmt: skip
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        y = self.functions.product(x, self.weight, self.bias)
        if self.base is not None and self.base_weight is not None:
            y = y + F.linear(self.base(x), self.base_weight)
        return y

    def _samples(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])

    def _by_edge(self, weight: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return weight, lambda edges: edges

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {super().extra_repr()}"

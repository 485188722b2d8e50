"""Layers whose nodes have bases of their own: nodes sorted by basis, all features in one matrix, one product."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.primitives.activations import Activation, activation
from layersearch.primitives.basis import Basis
from layersearch.primitives.layers._kan import kernel_of, whole
from layersearch.primitives.layers.domain_map import DomainMap
from layersearch.primitives.layers.functions import BasisFunctions, check_width
from layersearch.primitives.layers.init import Scales, scales
from layersearch.primitives.layers.selection import check_choice, check_pool, labels

__all__ = ["MixedKANConv2d", "MixedKANLinear", "NodeConv2d", "NodeLayer"]

_LAYER_NORM = "layernorm"
_EPS = 1e-5


class NodeLayer(nn.Module):
    """What layers share whose nodes have, or choose, a basis of a pool.

    ``weight`` is ``[O, F, …]``, the kernel's axes after the features: of each space its ``K`` functions of its nodes,
    function by function, and last the base branch of all nodes.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    base_name: str | None
    base: Activation | None

    def __init__(
        self,
        n_nodes: int,
        out_features: int,
        kernel: tuple[int, ...],
        pool: Sequence[str | Basis],
        members: Sequence[int],
        used: Sequence[int],
        base: str | None,
        domain: str | None,
        init: str,
        bias: bool,
        power: tuple[float, float],
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.pool = check_pool(pool)
        self.base_name, self.base = None, None
        if base is not None:
            self.base_name, self.base = activation(base)
        self.domain, self.init, self.power = domain, init, power
        self.n_nodes, self.kernel = n_nodes, kernel
        area = math.prod(kernel)
        self._fan = (n_nodes * area, out_features * area)
        for m in used:
            DomainMap(self._domain_of(m), self.pool[m].interval, n_nodes)  # refuses what does not go with these nodes
        # Layer norm is over all nodes of a layer, not over those of one space: the layer does it.
        self.normalize = domain == _LAYER_NORM
        self.spaces = nn.ModuleList(
            BasisFunctions(self.pool[m], n, "none" if self.normalize else self._domain_of(m), dtype=dtype)
            for m, n in zip(used, members, strict=True)
        )
        n_features = sum(self.pool[m].n_functions * n for m, n in zip(used, members, strict=True))
        n_features += n_nodes if self.base is not None else 0
        self.weight = nn.Parameter(torch.empty(out_features, n_features, *kernel, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype)) if bias else None

    def _domain_of(self, m: int) -> str:
        return self.domain or self.pool[m].domain

    def deviations(self, m: int) -> Scales:
        """How the weights of space ``m`` start, as those of a layer of this basis alone."""
        functions = BasisFunctions(self.pool[m], self.n_nodes, self._domain_of(m), dtype=torch.float64)
        return scales(self.init, functions, *self._fan, self.base, self.power)

    def _draw(self, spread: Sequence[Tensor], base: float, generator: torch.Generator | None) -> None:
        """Normal weights with a deviation per feature, ``spread`` per space; the bias starts at 0."""
        parts = [*spread, torch.full((self.n_nodes,), base, device="cpu")] if self.base is not None else list(spread)
        deviation = torch.cat([part.double() for part in parts]).to(self.weight)
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            self.weight.mul_(deviation.view(1, -1, *[1] * len(self.kernel)))
            if self.bias is not None:
                self.bias.zero_()

    def _functions(self, j: int, x: Tensor, normalised: Tensor | None) -> Tensor:
        """Functions of ``spaces[j]`` of nodes ``x`` ``[..., n]``: ``[..., K, n]``."""
        functions = cast(BasisFunctions, self.spaces[j])
        if normalised is not None:
            low, high = functions.basis.interval
            x = (low + high) / 2 + (high - low) / 4 * normalised
        return functions.columns(x)

    def _normalised(self, x: Tensor) -> Tensor | None:
        return F.layer_norm(x, x.shape[-1:], eps=_EPS) if self.normalize else None

    def extra_repr(self) -> str:
        names = ", ".join(row.name for row in self.pool)
        return f"{self.n_nodes}, {self.weight.shape[0]}, pool=({names}), base={self.base_name}, init={self.init}"


class NodeConv2d(NodeLayer):
    """What layers share whose nodes are the channels of images: sizes, and the convolution of features."""

    @staticmethod
    def sizes(
        in_channels: int, out_channels: int, kernel_size: int | tuple[int, int]
    ) -> tuple[int, int, tuple[int, int]]:
        """The channels, and height and width of the kernel. Raises: BadInputError."""
        height, width = kernel_of(kernel_size, 2)
        return whole("in_channels", in_channels), whole("out_channels", out_channels), (height, width)

    def keep(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int] | str,
        dilation: int | tuple[int, int],
    ) -> None:
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def convolved(self, features: Tensor, weight: Tensor) -> Tensor:
        """``[N, H, W, F] -> [N, O, H', W']``."""
        settings: Any = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return F.conv2d(features.movedim(-1, 1), weight, self.bias, **settings)


class _MixedLayer(NodeLayer):
    """See ``MixedKANLinear``."""

    choice: Tensor
    order: Tensor

    def __init__(
        self,
        n_nodes: int,
        out_features: int,
        kernel: tuple[int, ...],
        pool: Sequence[str | Basis],
        choice: Sequence[int] | Tensor,
        base: str | None,
        domain: str | None,
        init: str,
        bias: bool,
        power: tuple[float, float],
        generator: torch.Generator | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        rows = check_pool(pool)
        chosen = check_choice(choice, n_nodes, len(rows))
        self.used = tuple(sorted(set(chosen)))
        self.members = [chosen.count(m) for m in self.used]
        super().__init__(
            n_nodes, out_features, kernel, rows, self.members, self.used, base, domain, init, bias, power, dtype
        )
        picked = torch.tensor(chosen, dtype=torch.int64)
        self.register_buffer("choice", picked)
        self.register_buffer("order", picked.argsort(stable=True), persistent=False)
        self._chosen, self._sorted = chosen, list(chosen) == sorted(chosen)
        self.reset_parameters(generator)
        self.to(device)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights as ``init`` says; each node's as in a layer of its basis alone."""
        found = [self.deviations(m) for m in self.used]
        spread = [s.basis.repeat_interleave(n) for s, n in zip(found, self.members, strict=True)]
        self._draw(spread, found[0].base, generator)

    def features(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., F]``, the matrix that meets all outputs at once."""
        check_width(x, self.n_nodes)
        ordered = x if self._sorted else x.index_select(-1, self.order)
        normalised = self._normalised(ordered)
        parts = torch.split(ordered, self.members, -1)
        normed = [None] * len(parts) if normalised is None else torch.split(normalised, self.members, -1)
        found = [self._functions(j, part, normed[j]).flatten(-2) for j, part in enumerate(parts)]
        if self.base is not None:
            found.append(self.base(ordered))
        return torch.cat(found, dim=-1) if len(found) > 1 else found[0]

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        """Weights belong to their choice: those of another one do not fit, even where their shapes do."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        given = state_dict.get(f"{prefix}choice")
        if given is not None and given.tolist() != list(self._chosen):
            self.choice.copy_(torch.tensor(self._chosen))
            args[-1].append(f"{prefix}choice must be that of the layer, got another one; build the layer with it")

    def selected(self) -> tuple[str, ...]:
        """Name of each node's basis, with the settings that tell it from others of this name in the pool."""
        names = labels(self.pool)
        return tuple(names[m] for m in self._chosen)


class MixedKANLinear(_MixedLayer):
    """``y_o = sum_i (sum_k w[o,k,i] f_ik(d(x_i)) + v[o,i] b(x_i)) + c_o``, ``[..., I] -> [..., O]``; f_i of node i.

    Nodes are sorted by their basis; each basis is evaluated on its nodes alone, and all features, with those of the
    base branch, meet the outputs in one matrix product. What a ``SelectiveKANLinear`` is pruned to.

    Args:
        in_features, out_features: I, O.
        pool: bases to choose from, at least two, by name or configured.
        choice: index into ``pool`` of each node; may be a tensor or an array.
        base, domain, init, bias, power, generator: as in ``KANLinear``; ``domain`` is that of each basis by default.
    Raises: UnknownNameError or BadInputError, both with exit code 2.

    >>> layer = MixedKANLinear(3, 2, ("bspline", "rbf"), (1, 0, 1))
    >>> layer(torch.zeros(7, 3)).shape, layer.selected()
    (torch.Size([7, 2]), ('rbf', 'bspline', 'rbf'))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pool: Sequence[str | Basis],
        choice: Sequence[int] | Tensor,
        *,
        base: str | None = "silu",
        domain: str | None = None,
        init: str = "variance",
        bias: bool = True,
        power: tuple[float, float] = (0.25, 1.75),
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        in_features, out_features = whole("in_features", in_features), whole("out_features", out_features)
        super().__init__(
            in_features, out_features, (), pool, choice, base, domain, init, bias, power, generator, device, dtype
        )
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.features(x), self.weight, self.bias)


class MixedKANConv2d(NodeConv2d, _MixedLayer):
    """``MixedKANLinear`` as the kernel of a convolution, ``[N, C, H, W] -> [N, O, H', W']``; nodes are channels.

    The functions of a pixel are evaluated once; padding adds places without features, as in ``KANConv2d``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias: as in ``torch.nn.Conv2d``.
        pool, choice, base, domain, init, power, generator: as in ``MixedKANLinear``.
    Raises: UnknownNameError or BadInputError, both with exit code 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        pool: Sequence[str | Basis],
        choice: Sequence[int] | Tensor,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        base: str | None = "silu",
        domain: str | None = None,
        init: str = "variance",
        power: tuple[float, float] = (0.25, 1.75),
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        in_channels, out_channels, kernel = self.sizes(in_channels, out_channels, kernel_size)
        super().__init__(
            in_channels, out_channels, kernel, pool, choice, base, domain, init, bias, power, generator, device, dtype
        )
        self.keep(in_channels, out_channels, kernel, stride, padding, dilation)

    def forward(self, x: Tensor) -> Tensor:
        check_width(x, self.in_channels, 1, 4)
        return self.convolved(self.features(x.movedim(1, -1)), self.weight)

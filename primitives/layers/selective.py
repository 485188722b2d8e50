"""S-KAN: layers whose nodes learn which of several activation spaces to have, and are then pruned to that choice.

Stages as published (full → selective → pruning, arXiv:2408.08338); formulas are ours, since the abstract, all that was
read of it, gives none. ``set_stage`` and ``pruned`` are the whole of it: who trains decides when.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from layersearch.errors import BadInputError
from layersearch.primitives.basis import Basis
from layersearch.primitives.layers._kan import whole
from layersearch.primitives.layers.functions import BasisFunctions, check_width
from layersearch.primitives.layers.mixed import MixedKANConv2d, MixedKANLinear, NodeConv2d, NodeLayer
from layersearch.primitives.layers.node_fit import NodeFit, fit_nodes
from layersearch.primitives.layers.selection import DEFAULT_POOL, NodeGates, check_choice, check_pool
from layersearch.primitives.registry import unknown_name

__all__ = ["CRITERIA", "SelectiveKANConv2d", "SelectiveKANLinear", "SelectiveLayer"]

CRITERIA = ("fit", "gate")
"""How a node's space is chosen when it is pruned: by what the space can say of the node, or by its gate."""
_ORDER = 0
"""Seed of the order of pixels."""

Mixed = TypeVar("Mixed", MixedKANLinear, MixedKANConv2d)


class SelectiveLayer(NodeLayer):
    """See ``SelectiveKANLinear``."""

    def __init__(
        self,
        n_nodes: int,
        out_features: int,
        kernel: tuple[int, ...],
        pool: Sequence[str | Basis],
        gate: str,
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
        members = [n_nodes] * len(rows)
        super().__init__(
            n_nodes, out_features, kernel, rows, members, range(len(rows)), base, domain, init, bias, power, dtype
        )
        self.gates = NodeGates(n_nodes, len(rows), gate).to(dtype=dtype)
        self.reset_parameters(generator)
        self.to(device)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights, of each space as in a layer of it alone; logits start at 0.

        Gates have the norm 1, so that outputs have the variance that ``init`` promises.
        """
        found = [self.deviations(m) for m in range(len(self.pool))]
        self._draw([s.basis.repeat_interleave(self.n_nodes) for s in found], found[0].base, generator)
        with torch.no_grad():
            self.gates.logits.zero_()

    def set_stage(self, temperature: float | None, generator: torch.Generator | None = None) -> None:
        """Full stage (None), or selective stage at a temperature τ > 0, with new noise if gates are drawn.

        Call it before each training step; evaluation needs no call.
        """
        self.gates.set_temperature(temperature)
        if temperature is not None:
            self.gates.draw(generator)

    def features_by_space(self, x: Tensor) -> list[Tensor]:
        """Functions of each space of every node, ``[..., I] -> [..., K, I]``."""
        check_width(x, self.n_nodes)
        normalised = self._normalised(x)
        return [self._functions(j, x, normalised) for j in range(len(self.spaces))]

    def features(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., F]``: all functions of all spaces of every node, then the base branch."""
        found = [f.flatten(-2) for f in self.features_by_space(x)]
        return torch.cat([*found, self.base(x)] if self.base is not None else found, dim=-1)

    def weights_by_space(self, weight: Tensor) -> tuple[list[Tensor], Tensor]:
        """Of a tensor shaped like ``weight``, the part ``[I, K, R]`` of each space and ``[I, R]`` of the base branch.

        R runs over outputs × places of the kernel; no base branch is one of zeros.
        """
        flat = weight.movedim(1, 0).flatten(1)
        sizes = [row.n_functions * self.n_nodes for row in self.pool]
        *parts, rest = torch.split(flat, [*sizes, len(flat) - sum(sizes)])
        shaped = [part.view(-1, self.n_nodes, flat.shape[1]).movedim(0, 1) for part in parts]
        return shaped, rest if self.base is not None else flat.new_zeros(self.n_nodes, flat.shape[1])

    def gated_weight(self) -> Tensor:
        """``weight`` times each feature's gate: weights are far fewer numbers than the features of a batch."""
        gates = self.gates()
        each = [gates[:, m].repeat(row.n_functions) for m, row in enumerate(self.pool)]
        if self.base is not None:
            each.append(torch.ones_like(gates[:, 0]))
        return self.weight * torch.cat(each).view(1, -1, *[1] * len(self.kernel))

    def choice(self) -> tuple[int, ...]:
        """Index into the pool of what each node would choose now."""
        return tuple(self.gates.choice().tolist())

    def _slices(self, tensors: Mapping[str, Tensor], choice: Sequence[int]) -> dict[str, Tensor]:
        """What the pruned layer has of our state dict, under its names."""
        nodes = {m: [i for i, chosen in enumerate(choice) if chosen == m] for m in sorted(set(choice))}
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if name == "weight":
                found[name] = tensor.index_select(1, self._kept(nodes).to(tensor.device))
            elif name == "bias":
                found[name] = tensor
            elif name.startswith("spaces."):
                m, rest = name.removeprefix("spaces.").split(".", 1)
                if int(m) in nodes:
                    at = torch.tensor(nodes[int(m)], device=tensor.device)
                    part = tensor.index_select(-1, at) if rest in self._per_node(int(m)) else tensor
                    found[f"spaces.{list(nodes).index(int(m))}.{rest}"] = part
        return found

    def _kept(self, nodes: Mapping[int, Sequence[int]]) -> Tensor:
        """Features, in the order of the pruned layer."""
        begins = [0]
        for row in self.pool:
            begins.append(begins[-1] + row.n_functions * self.n_nodes)
        kept = [
            begins[m] + k * self.n_nodes + i for m, own in nodes.items() for k in range(self.pool[m].n_functions)
            for i in own
        ]  # fmt: skip
        if self.base is not None:
            kept += [begins[-1] + i for own in nodes.values() for i in own]
        return torch.tensor(kept, dtype=torch.int64)

    def _per_node(self, m: int) -> frozenset[str]:
        """Names of the tensors of a space whose last axis runs over the nodes."""
        kind = "none" if self.normalize else self._domain_of(m)
        two, three = (BasisFunctions(self.pool[m], n, kind).state_dict() for n in (2, 3))
        return frozenset(name for name in two if two[name].shape != three[name].shape)

    def _choose(
        self, choice: Sequence[int] | Tensor | Literal["gate", "fit"], data: Tensor | None
    ) -> tuple[tuple[int, ...], NodeFit | None]:
        if isinstance(choice, str) and choice not in CRITERIA:
            raise unknown_name("choice", choice, list(CRITERIA))
        fit = None if data is None else fit_nodes(self, self._samples(data))
        if not isinstance(choice, str):
            return check_choice(choice, self.n_nodes, len(self.pool)), fit
        if choice == "gate":
            return self.choice(), fit
        if fit is None:
            raise BadInputError("choice 'fit' needs data to fit the nodes on, got none; give a batch of inputs")
        return fit.choice(), fit

    def _samples(self, x: Tensor) -> Tensor:
        """The inputs as ``[N, I]``."""
        raise NotImplementedError

    def _filled(self, mixed: Mixed, chosen: Sequence[int], fit: NodeFit | None) -> Mixed:
        mixed.load_state_dict({"choice": mixed.choice, **self._slices(self.state_dict(), chosen)})
        if fit is not None:
            self._refit(mixed, chosen, fit)
        return mixed.train(self.training)

    @torch.no_grad()
    def _refit(self, mixed: NodeLayer, chosen: Sequence[int], fit: NodeFit) -> None:
        """Puts the coefficients of a fit in place of the weights; its constants go into the bias, if there is one."""
        order = sorted(range(self.n_nodes), key=lambda i: chosen[i])  # stable
        own = [fit.coefficients[chosen[i]][i] for i in order]
        parts = []
        for m in sorted(set(chosen)):
            rows = torch.stack([own[j][:-2] for j, i in enumerate(order) if chosen[i] == m], dim=1)
            parts.append(rows.flatten(0, 1))
        if self.base is not None:
            parts.append(torch.stack([c[-2] for c in own]))
        flat = torch.cat(parts).view(-1, mixed.weight.shape[0], *self.kernel)
        mixed.weight.copy_(flat.movedim(0, 1))
        if mixed.bias is not None:
            constant = torch.stack([c[-1] for c in own]).sum(0)
            mixed.bias.add_(constant.view(mixed.bias.shape[0], -1).sum(-1).to(mixed.bias))


class SelectiveKANLinear(SelectiveLayer):
    """``y_o = sum_i (sum_m g[i,m] sum_k w[o,m,k,i] f_mk(d_m(x_i)) + v[o,i] b(x_i)) + c_o``; ``[..., I] -> [..., O]``.

    Every node i has all spaces m of a pool, weighed by gates ``g`` (``NodeGates``): equal ones in the full stage,
    learned ones in the selective stage; ``pruned`` keeps one space of each node.

    Args:
        in_features, out_features: I, O.
        pool: activation spaces, at least two, by name or as configured rows of ``BASES``.
        gate: ``softmax``, ``gumbel`` or ``straight``.
        base: activation b of the base branch, or None for no such branch; all spaces share it.
        domain: map of the inputs for all spaces; that of each basis by default.
        init, bias, power, generator: as in ``KANLinear``.
    Raises: UnknownNameError or BadInputError, both with exit code 2.

    >>> layer = SelectiveKANLinear(3, 2)
    >>> layer.set_stage(0.5)
    >>> layer(torch.zeros(7, 3)).shape
    torch.Size([7, 2])
    >>> layer.pruned([0, 3, 0]).selected()
    ('bspline', 'rbf', 'bspline')
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        pool: Sequence[str | Basis] = DEFAULT_POOL,
        *,
        gate: str = "softmax",
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
            in_features, out_features, (), pool, gate, base, domain, init, bias, power, generator, device, dtype
        )
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.features(x), self.gated_weight(), self.bias)

    def _samples(self, x: Tensor) -> Tensor:
        check_width(x, self.n_nodes)
        return x.reshape(-1, self.n_nodes)

    def pruned(
        self, choice: Sequence[int] | Tensor | Literal["gate", "fit"] = "gate", data: Tensor | None = None
    ) -> MixedKANLinear:
        """The layer in which every node has one space, with a gate of 1.

        Args:
            choice: ``gate`` for the space of the largest logit; ``fit`` for the one that comes nearest to what the node
                has learned with all of them; or an index into the pool for each node, as a sequence, tensor or array.
            data: inputs of the layer, ``[..., I]``. With them, coefficients are fitted so that every node keeps its
                function as its space can (``fit_nodes``). Without, they stay as they are: the output is that of this
                layer with one-hot gates.
        Raises: UnknownNameError; BadInputError for a choice that does not fit, or ``fit`` without data.
        """
        chosen, fit = self._choose(choice, data)
        mixed = MixedKANLinear(
            self.in_features, self.out_features, self.pool, chosen, base=self.base_name, domain=self.domain,
            init=self.init, bias=self.bias is not None, power=self.power, generator=torch.Generator(),
            device=self.weight.device, dtype=self.weight.dtype,
        )  # fmt: skip
        return self._filled(mixed, chosen, fit)


class SelectiveKANConv2d(NodeConv2d, SelectiveLayer):
    """S-ConvKAN: ``SelectiveKANLinear`` as the kernel of a convolution, ``[N, C, H, W] -> [N, O, H', W']``.

    Nodes are input channels: a channel has one space at all places, and its functions are evaluated once per pixel.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias: as in ``torch.nn.Conv2d``.
        pool, gate, base, domain, init, power, generator: as in ``SelectiveKANLinear``.
    Raises: UnknownNameError or BadInputError, both with exit code 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        pool: Sequence[str | Basis] = DEFAULT_POOL,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        gate: str = "softmax",
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
            in_channels, out_channels, kernel, pool, gate, base, domain, init, bias, power, generator, device, dtype
        )
        self.keep(in_channels, out_channels, kernel, stride, padding, dilation)

    def forward(self, x: Tensor) -> Tensor:
        check_width(x, self.in_channels, 1, 4)
        return self.convolved(self.features(x.movedim(1, -1)), self.gated_weight())

    def _samples(self, x: Tensor) -> Tensor:
        """All pixels in one fixed random order: of rows in order, a fit takes every so many, which is one column."""
        check_width(x, self.in_channels, 1, 4)
        pixels = x.movedim(1, -1).reshape(-1, self.n_nodes)
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(_ORDER))
        return pixels[order.to(x.device)]

    def pruned(
        self, choice: Sequence[int] | Tensor | Literal["gate", "fit"] = "gate", data: Tensor | None = None
    ) -> MixedKANConv2d:
        """As ``SelectiveKANLinear.pruned``, of channels; ``data`` are ``[N, C, H, W]``.

        Constants that fitting finds count at every place of the kernel, which padding has not: a layer with padding
        keeps its function but for its border.
        """
        chosen, fit = self._choose(choice, data)
        mixed = MixedKANConv2d(
            self.in_channels, self.out_channels, self.kernel_size, self.pool, chosen, self.stride, self.padding,
            self.dilation, self.bias is not None, base=self.base_name, domain=self.domain, init=self.init,
            power=self.power, generator=torch.Generator(), device=self.weight.device, dtype=self.weight.dtype,
        )  # fmt: skip
        return self._filled(mixed, chosen, fit)

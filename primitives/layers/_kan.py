"""What KAN layers share: weights of edges, the base branch, their start, and moving the grid."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.activations import Activation, activation
from layersearch.primitives.basis import Basis
from layersearch.primitives.integers import integer
from layersearch.primitives.layers.functions import BasisFunctions
from layersearch.primitives.layers.init import scales
from layersearch.primitives.layers.regrid import refit

__all__ = ["KANLayer", "kernel_of", "whole"]


def whole(name: str, value: Any, low: int = 1) -> int:
    """``value`` as an integer, if it is one of Python, numpy or torch of at least ``low``. Raises BadInputError."""
    number = integer(value)
    if number is None or number < low:
        raise BadInputError(f"{name} must be a whole number of at least {low}, got {value!r:.40}")
    return number


def kernel_of(kernel_size: int | tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    """Sides of a kernel. Raises: BadInputError if they are not that many whole numbers of at least 1."""
    kernel = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,) * dimensions
    if len(kernel) != dimensions:
        raise BadInputError(f"kernel_size must have {dimensions} numbers, got {kernel}")
    return tuple(whole("kernel_size", size) for size in kernel)


class KANLayer(nn.Module):
    """Parameters of a layer whose edges are sums of basis functions; see ``KANLinear``.

    ``weight`` is ``[O, K, I, …]`` and ``base_weight`` ``[O, I, …]``, with the kernel's axes after ``I``.
    """

    weight: nn.Parameter
    base_weight: nn.Parameter | None
    bias: nn.Parameter | None
    base_name: str | None
    base: Activation | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        edges_in: int,
        kernel: tuple[int, ...],
        fan: tuple[int, int],
        basis: str | Basis,
        base: str | None,
        domain: str | None,
        init: str,
        bias: bool,
        power: tuple[float, float],
        generator: torch.Generator | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        settings: dict[str, Any],
    ) -> None:
        super().__init__()
        self.functions = BasisFunctions(basis, in_features, domain, device=device, dtype=dtype, **settings)
        self.base_name, self.base = None, None
        if base is not None:
            self.base_name, self.base = activation(base)
        self.init, self.power, self._fan = init, power, fan
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        n_functions = self.functions.basis.n_functions
        self.weight = nn.Parameter(torch.empty(out_features, n_functions, edges_in, *kernel, **like))
        has_base = self.base is not None
        self.base_weight = nn.Parameter(torch.empty(out_features, edges_in, *kernel, **like)) if has_base else None
        self.bias = nn.Parameter(torch.empty(out_features, **like)) if bias else None
        self.reset_parameters(generator)

    @property
    def basis(self) -> Basis:
        """The basis and its settings; read-only, see ``extend_grid``."""
        return self.functions.basis

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new weights as ``init`` says, from ``generator`` or torch's own; the bias starts at 0."""
        deviation = scales(self.init, self.functions, *self._fan, self.base, self.power)
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            shape = (1, -1, *[1] * (self.weight.dim() - 2))
            self.weight.mul_(deviation.basis.to(self.weight).view(shape))
            if self.base_weight is not None:
                self.base_weight.normal_(0.0, deviation.base, generator=generator)
            if self.bias is not None:
                self.bias.zero_()

    def _samples(self, x: Tensor) -> Tensor:
        """The inputs as ``[N, I]``."""
        raise NotImplementedError

    def _by_edge(self, weight: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """``weight`` as ``[R, K, I]`` and the way back, for any number of functions."""
        raise NotImplementedError

    @torch.no_grad()
    def extend_grid(self, grid: int) -> float:
        """Refines the grid to ``grid`` intervals or points over the same span, refitting the weights.

        Returns: the root mean square change of the edges over the span, relative to their own; nothing but rounding
            if the finer B-spline or piecewise linear grid holds the points of the coarser one.
        Raises: BadInputError for a basis without a grid. The parameters are new ones: build the optimiser again.
        """
        self._need_grid()
        finer = self.basis.configure(grid=grid)
        return self._regrid(finer, finer.refined(self.basis, self.functions.state), None)

    @torch.no_grad()
    def update_grid(self, x: Tensor, margin: float = 0.01) -> float:
        """Moves the grid of each input over the data ``x`` and refits the weights to keep the edges.

        Args:
            x: a batch of inputs of the layer that spans what it sees.
            margin: how far the grid reaches beyond the data, in parts of their width.
        Returns: the root mean square change of the edges over the data's span, relative to their own.
        Raises: BadInputError for a basis without a grid, data that are not finite, or a margin that is not in [0, 10].
        """
        self._need_grid()
        if not isinstance(margin, int | float) or not 0 <= margin <= 10:
            raise BadInputError(f"margin must be a number in [0, 10], got {margin!r:.40}; use for example 0.01")
        u = self.functions.mapped(self._samples(x))
        if u.shape[0] == 0 or not bool(u.isfinite().all()):
            raise BadInputError("update_grid needs finite data, got none or some that are nan or inf; clean them")
        return self._regrid(self.basis, self.basis.placed(u, margin), u)

    def _need_grid(self) -> None:
        if not self.basis.has_grid:
            raise BadInputError(f"basis '{self.basis.name}' has no grid to move or refine; one that has is bspline")

    def _regrid(self, basis: Basis, state: dict[str, Tensor], data: Tensor | None) -> float:
        edges, back = self._by_edge(self.weight)
        fitted, change = refit(edges, self.basis, self.functions.state, basis, state, data)
        self.functions.set_state(basis, state)
        weight = back(fitted).to(self.weight)
        if weight.shape == self.weight.shape:
            self.weight.copy_(weight)
        else:
            self.weight = nn.Parameter(weight.contiguous(), self.weight.requires_grad)
        return change

    def extra_repr(self) -> str:
        return f"base={self.base_name}, init={self.init}, bias={self.bias is not None}"

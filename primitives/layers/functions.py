"""A basis as a module: the domain map, the tensors of the basis, and the features they make."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.errors import BadInputError
from layersearch.primitives.basis import BASES, Basis, State
from layersearch.primitives.layers._lowered import lowering_name
from layersearch.primitives.layers.domain_map import DomainMap

__all__ = ["BasisFunctions", "check_width"]


def check_width(x: Tensor, n_inputs: int, dim: int = -1, n_axes: int | None = None) -> None:
    """Raises: BadInputError unless ``x`` has ``n_inputs`` on axis ``dim``, ``n_axes`` if told, and real numbers.

    Torch would broadcast, and kernels read beyond the tensors of a layer. To ``torch.jit.trace`` sizes are tensors, of
    which it would warn.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return
    if not x.is_floating_point():
        raise BadInputError(f"inputs of this layer must be floating-point numbers, got {x.dtype}; convert them")
    if n_axes not in (None, x.dim()) or not -x.dim() <= dim < x.dim() or x.shape[dim] != n_inputs:
        where = "the last axis" if dim == -1 else f"axis {dim}"
        axes = "" if n_axes is None else f"{n_axes} axes and "
        raise BadInputError(
            f"inputs of this layer must have {axes}{n_inputs} features on {where}, got {list(x.shape)}; reshape them, "
            "or build the layer for another number"
        )


class BasisFunctions(nn.Module):
    """``[..., I] -> [..., I, K]``: every function of ``basis`` of every mapped input.

    Half precision is mapped and evaluated in float32 and rounded once. The trained tensors of the basis are parameters,
    the others buffers, so both are in the state dict.

    Args:
        basis: a row, or the name of one.
        in_features: ``I``.
        domain: a name of ``DOMAINS``; that of the basis by default.
        lowering: ``auto``, ``torch``, ``c`` or ``triton``: how functions are computed. ``auto`` takes kernels where
            they can be had (``Basis.columns``, ``product``).
        **settings: of the basis (``degree``, ``grid``, …).
    Raises: BadInputError or UnknownNameError.
    """

    def __init__(
        self,
        basis: str | Basis,
        in_features: int,
        domain: str | None = None,
        *,
        lowering: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: float | str | bool,
    ) -> None:
        super().__init__()
        row = BASES[basis] if isinstance(basis, str) else basis
        self.basis = row.configure(**settings)
        self.in_features = in_features
        self.lowering = lowering_name(lowering)
        self._names: tuple[str, ...] = ()
        held_on = torch.empty(()).device if device is None else device
        with torch.device("cpu"):  # where the numbers of grids can be read, whatever the default is
            self.domain = DomainMap(domain or row.domain, self.basis.interval, in_features)
            self.set_state(self.basis, self.basis.state(in_features))
        self.to(device=held_on, dtype=dtype or torch.get_default_dtype())

    def set_state(self, basis: Basis, state: State) -> None:
        """Takes ``basis`` and the tensors ``state`` in place of its own, on the same device and in the same dtype.

        Tensors of a shape that they had stay the same objects, which an optimiser knows; what is frozen stays so.
        """
        own, learned = self.state, self.basis.learned
        like = next(iter(own.values()), torch.empty(()))
        self.basis, self._names = basis, tuple(state)
        shapes, wanted = ({name: t.shape for name, t in tensors.items()} for tensors in (own, state))
        if shapes == wanted and learned == basis.learned:
            with torch.no_grad():
                for name, value in state.items():
                    own[name].copy_(value)
            return
        for name in own:
            delattr(self, name)
        for name, value in state.items():
            held = value.detach().to(device=like.device, dtype=like.dtype).clone()
            if name in basis.learned:
                frozen = name in learned and name in own and not own[name].requires_grad
                self.register_parameter(name, nn.Parameter(held, requires_grad=not frozen))
            else:
                self.register_buffer(name, held)

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors of the basis, by name."""
        return {name: getattr(self, name) for name in self._names}

    def mapped(self, x: Tensor) -> Tensor:
        """The argument of the basis for inputs ``x``, in float32 at least. Raises: BadInputError for another width."""
        check_width(x, self.in_features)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mapped: Tensor = self.domain(wide)
        return mapped

    def columns(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., K, I]``, laid out for one matrix product, in the dtype of ``x``."""
        return self.basis.columns(self.mapped(x), self.state, self.lowering).to(x.dtype)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``y_o = sum_{k,i} weight[o, k, i] f_k(x_i) + bias_o``, ``[..., I] -> [..., O]``.

        On CUDA by kernels that never store the features, where there are some (``layers._product``); else ``columns``
        and one matrix product.
        """
        u = self.mapped(x)
        if self.lowering in ("auto", "triton") and self.basis.kernel is not None:
            from layersearch.primitives.layers._product import product_by_kernel

            y = product_by_kernel(self.basis, u, self.state, weight, x.dtype, self.lowering)
            if y is not None:
                return y if bias is None else y + bias.to(y.dtype)
        columns = self.basis.columns(u, self.state, self.lowering).to(x.dtype)
        return F.linear(columns.flatten(-2), weight.flatten(1), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.columns(x).transpose(-1, -2)

    def extra_repr(self) -> str:
        return f"{self.basis}, in_features={self.in_features}"

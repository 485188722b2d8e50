"""What a basis is: one row that holds everything which must agree about a family of univariate functions.

A KAN layer writes each edge as a sum of basis functions, ``y_o = sum_i sum_k w[o, k, i] f_k(x_i)``: the basis makes the
features ``f_k(x_i)`` and one matrix product does the rest. A row is a frozen dataclass whose fields are its settings
(degree, grid, …) at their defaults; ``BASES["chebyshev"].configure(degree=8)`` is the same basis with others.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.kernels.features.form import Features
from layersearch.primitives.registry import Registry, unknown_name

__all__ = ["BASES", "REACH", "Basis", "DomainName", "Setting", "State", "number", "setting", "spread"]

DomainName: TypeAlias = Literal["tanh", "layernorm", "minmax", "clamp", "softplus", "none"]
"""How a layer brings its inputs to the interval of a basis (``layers.domain_map``)."""

State: TypeAlias = Mapping[str, Tensor]
"""Tensors of a basis: grids, widths, recurrence coefficients. Those in ``Basis.learned`` are trained."""

REACH = float(2**20)
"""An argument beyond ±2²⁰ counts as ±2²⁰: powers up to the fifth stay finite in float32 on the whole real line."""


@dataclass(frozen=True)
class Setting:
    """Limits of one setting: whole numbers or not, from ``low`` to ``high``, or one of ``choices``."""

    name: str
    default: float | str | bool
    low: float
    high: float
    choices: tuple[str, ...]
    about: str

    def check(self, owner: str, value: Any) -> None:
        """Raises BadInputError unless ``value`` is of the default's kind and within the limits."""
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise BadInputError(f"{self.name} of basis '{owner}' must be true or false, got {value!r:.40}")
        elif isinstance(self.default, str):
            if value not in self.choices:
                raise unknown_name(f"{self.name} of basis '{owner}'", str(value), sorted(self.choices))
        else:
            kind = int if isinstance(self.default, int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or not self.low <= value <= self.high:
                what = "a whole number" if kind is int else "a number"
                raise BadInputError(
                    f"{self.name} of basis '{owner}' must be {what} in [{self.low:g}, {self.high:g}], got "
                    f"{value!r:.40}; the default is {self.default}"
                )


def setting(
    default: Any, *, about: str, low: float = -REACH, high: float = REACH, choices: tuple[str, ...] = ()
) -> Any:
    """A field of a basis with its limits."""
    rule = {"default": default, "low": low, "high": high, "choices": choices, "about": about}
    return field(default=default, metadata=rule)


def number(value: float | Tensor) -> str:
    """A number as it stands in printed forms: the shortest text that reads back to it, in brackets if negative."""
    text = repr(value.item() if isinstance(value, Tensor) else float(value)).removesuffix(".0")
    return f"({text})" if text.startswith("-") else text


def spread(low: Tensor, high: Tensor, count: int) -> Tensor:
    """``count`` evenly spaced points from ``low`` to ``high`` (each ``[I]``), as ``[count, I]``."""
    at = torch.linspace(0, 1, count, dtype=low.dtype, device=low.device).unsqueeze(-1)
    return low + (high - low) * at


@dataclass(frozen=True, kw_only=True)
class Basis(ABC):
    """``K`` functions of one variable, evaluated on every input.

    Class attributes, the fixed part of a row:
        name: key in ``BASES``.
        title: what users read.
        source: paper or book, and where we deviate.
        knob: the setting that sets the resolution (``degree`` or ``grid``).
        domain: the map a layer applies to its inputs unless told otherwise.
        has_grid: the basis lives on an interval per input that can be moved and refined (``layers.regrid``).
        kernel: form of its kernels, if there are any; ``fused`` gives its data.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    knob: ClassVar[str]
    domain: ClassVar[DomainName] = "tanh"
    has_grid: ClassVar[bool] = False
    kernel: ClassVar[Literal["harmonics", "pieces", "profiles", "quotient", "recurrence"] | None] = None

    def __post_init__(self) -> None:
        for name, rule in self.settings().items():
            rule.check(self.name, getattr(self, name))

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """The settings and their limits, by name."""
        return {f.name: Setting(name=f.name, **f.metadata) for f in fields(cls)}

    def configure(self, **settings: Any) -> Self:
        """The same basis with other settings. Raises UnknownNameError or BadInputError."""
        known = self.settings()
        for name in settings:
            if name not in known:
                raise unknown_name(f"setting of basis '{self.name}'", name, sorted(known))
        return replace(self, **settings)

    @property
    @abstractmethod
    def n_functions(self) -> int:
        """``K``."""

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the state tensors that are trained; the others are buffers."""
        return ()

    @property
    @abstractmethod
    def flops(self) -> float:
        """Operations to evaluate all ``K`` functions at one input, a transcendental counted as 10."""

    @property
    def interval(self) -> tuple[float, float]:
        """Where the functions vary: what the domain map aims at."""
        return (-1.0, 1.0)

    @property
    def reach(self) -> tuple[float, float]:
        """Arguments are clamped to this, so that values and gradients are finite on the whole real line."""
        return (-REACH, REACH)

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        """Fresh tensors of the basis in float64.

        Args:
            in_features: ``I``.
            low, high: ``[I]``, ends of the grid of each input; ``interval`` by default. Bases without a grid ignore it.
        """
        return {}

    @abstractmethod
    def _columns(self, x: Tensor, state: State) -> Tensor:
        """``[..., K, I]`` for ``x`` ``[..., I]`` within ``reach``, in the dtype of ``x`` and ``state``."""

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        """The functions as kernels take them, or None; tensors of coefficients are on ``device``, that of ``state``."""
        return None

    def columns(self, x: Tensor, state: State, lowering: str = "auto") -> Tensor:
        """The ``K`` functions of every input, ``[..., I] -> [..., K, I]``, laid out for one matrix product.

        Half precision is computed in float32 and rounded once. ``state`` is cast to the dtype of the computation.
        ``lowering`` ``auto`` and ``c`` take generated C for float32 and half precision on the CPU where there is a
        compiler; otherwise, and as ``torch``, it is done by torch.
        """
        if self.kernel is not None and lowering != "torch":
            from layersearch.primitives.layers._features import columns_by_kernel

            columns = columns_by_kernel(self, x, state, lowering)
            if columns is not None:
                return columns
        return self.plain_columns(x, state)

    def plain_columns(self, x: Tensor, state: State) -> Tensor:
        """``columns`` by torch."""
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        cast = {name: value.to(wide.dtype) for name, value in state.items()}
        return self._columns(wide.clamp(*self.reach), cast).to(x.dtype)

    def evaluate(self, x: Tensor, state: State) -> Tensor:
        """The ``K`` functions of every input, ``[..., I] -> [..., I, K]`` (a view of ``columns``)."""
        return self.columns(x, state).transpose(-1, -2)

    def placed(self, x: Tensor, margin: float = 0.01) -> dict[str, Tensor]:
        """Fresh tensors with grids over the data ``x`` ``[N, I]`` and ``margin`` of their width beyond."""
        low, high = x.double().aminmax(dim=0)
        least = 1e-3 * (self.interval[1] - self.interval[0])
        pad = margin * (high - low) + 0.5 * (least - (high - low)).clamp_min(0)
        return self.state(x.shape[-1], low - pad, high + pad)

    def refined(self, coarse: Self, state: State) -> dict[str, Tensor]:
        """Fresh tensors over the same span as those of ``coarse``, the same basis with another grid."""
        low, high = coarse.span(state)
        return self.state(low.shape[0], low, high)

    def span(self, state: State) -> tuple[Tensor, Tensor]:
        """Ends of the grid of each input, two tensors ``[I]``; only for bases with a grid."""
        raise BadInputError(f"basis '{self.name}' has no grid; one that has is bspline")

    @abstractmethod
    def text(self, k: int, state: State, i: int = 0) -> str:
        """Function ``k`` of input ``i`` as an expression in ``x``, with the numbers of ``state`` filled in.

        Operators, ``pi``, ``abs``, ``max``, ``sqrt``, ``exp``, ``sin``, ``cos``, ``tanh`` and ``sinc``
        (``sin(pi x) / (pi x)``), all within ``reach``.
        """

    @abstractmethod
    def latex(self, k: int) -> str:
        """Function ``k`` in the symbols of its source."""


BASES: Registry[Basis] = Registry("basis", package="layersearch.primitives.bases")
"""The bases, one file each in ``primitives/bases``."""

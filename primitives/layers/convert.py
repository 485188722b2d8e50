"""Turns the activations of a trained model into group rationals that do the same."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import BadInputError
from layersearch.primitives.activations import Activation
from layersearch.primitives.layers.rational import GroupRational
from layersearch.primitives.op import group_count
from layersearch.primitives.rational_fit import DEGREES, RationalFit, fit_rational

__all__ = ["CONVERTED", "Conversion", "Converted", "to_group_rational"]

CONVERTED: tuple[type[nn.Module], ...] = (
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)
"""Activation modules that are replaced."""

_CHANNELS: tuple[tuple[Any, int, str], ...] = (
    (nn.Linear, -1, "out_features"),
    ((nn.LayerNorm, nn.RMSNorm), -1, "normalized_shape"),
    (nn.Embedding, -1, "embedding_dim"),
    (nn.MultiheadAttention, -1, "embed_dim"),
    (nn.modules.conv._ConvNd, 1, "out_channels"),
    (nn.modules.batchnorm._NormBase, 1, "num_features"),
    (nn.GroupNorm, 1, "num_channels"),
)
"""Layers, the axis of their output that has the channels, and the attribute that says how many there are."""
_WITH_CHANNELS = tuple(kind for kinds, *_ in _CHANNELS for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))

_KEPT = 4096
_WIDEN = 0.02


@dataclass(frozen=True)
class Converted:
    """One replaced activation.

    Args:
        name: of the module in the model.
        activation: what it was.
        low, high: range of its inputs on the example.
        degree: of the numerator that was needed.
        max_deviation: largest difference from the activation on that range.
    """

    name: str
    activation: str
    channels: int
    groups: int
    low: float
    high: float
    degree: int
    max_deviation: float


@dataclass(frozen=True)
class Conversion:
    """The new model, what was replaced in it, and the largest difference of its outputs on the example."""

    model: nn.Module
    layers: tuple[Converted, ...]
    output_deviation: float


class _Function(nn.Module):
    """A function in the place of a module, so that its inputs can be seen."""

    def __init__(self, function: Activation) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Axes:
    """On which axis tensors have their channels, by the layers that they come from."""

    def __init__(self, otherwise: int | None) -> None:
        self._otherwise = otherwise
        self._latest: tuple[Tensor, int] | None = None
        self._by_shape: dict[torch.Size, set[int]] = {}

    def __call__(self, module: nn.Module, _inputs: object, output: Any) -> None:
        """A hook of layers that have channels; of subclasses that have them elsewhere nothing is kept."""
        axis, width = next((axis, getattr(module, name)) for kind, axis, name in _CHANNELS if isinstance(module, kind))
        y, width = _tensor(output), width[-1] if isinstance(width, tuple) else width
        if -y.dim() <= axis < y.dim() and y.shape[axis] == width:
            self._latest = y, axis
            self._by_shape.setdefault(y.shape, set()).add(axis)

    def of(self, x: Tensor) -> int | None:
        """The axis of the layer that gave ``x``, or of all that gave one of its shape; None if that says nothing."""
        if x.dim() <= 2:
            return -1
        if self._latest is not None and x is self._latest[0]:
            return self._latest[1]
        found = self._by_shape.get(x.shape, set())
        return next(iter(found)) if len(found) == 1 else self._otherwise


class _Seen:
    """Inputs of one activation: range, shape, and a sample."""

    def __init__(self, name: str, axes: _Axes) -> None:
        self.name, self.axes = name, axes
        self.values: list[Tensor] = []
        self.low, self.high = float("inf"), float("-inf")
        self.shapes: set[tuple[int, int]] = set()

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        dim = self.axes.of(inputs[0])
        x = inputs[0].detach()
        if dim is None or not -x.dim() <= dim < x.dim():
            raise BadInputError(
                f"the layer before activation '{self.name}' must tell the axis of the channels of {list(x.shape)}, "
                f"which none does{'' if dim is None else f', and it is not {dim}'}; give dim, -1 or 1"
            )
        self.shapes.add((x.shape[dim], dim))
        flat = x.flatten().double().cpu()
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self.values.append(flat[:: max(1, flat.numel() // _KEPT)])


def to_group_rational(
    model: nn.Module,
    example: Tensor | tuple[Any, ...],
    *,
    groups: int = 8,
    tolerance: float = 1e-3,
    identity: bool = True,
    dim: int | None = None,
) -> Conversion:
    """A copy of ``model`` with ``GroupRational`` in place of its activations, as KAT is made from a ViT.

    Each rational is fitted to the activation it replaces over the range of its inputs on ``example``: degree 5/4, and
    the next higher ones while the largest difference is above ``tolerance`` (a kink stays above it; the best is kept
    and the report says how far off it is). ``nn.TransformerEncoderLayer`` is understood, and so is every model whose
    activations are modules. Channels are where the layer before has them: on the last axis after linear layers and
    layer norm, on axis 1 after convolutions, batch and group norm.

    Args:
        example: input or inputs of the model, real data if possible; the model sees it in evaluation mode.
        groups: upper limit of the number of groups; the largest divisor of the channels up to it is used.
        tolerance: largest difference wanted for each activation.
        identity: also put a rational that starts as the identity, which is exact, before every linear layer that feeds
            an activation, as in KAT's feed-forward part. Its parameters get another name in the state dict.
        dim: axis of the channels of activations for which no layer says it.
    Returns: the copy and the report; modules of the copy are in the mode, training or not, that they had. ``model``
        itself is not changed.
    Raises: BadInputError if no activation is found, one is shared by places of different width, an axis of channels
        cannot be told, or data are not finite.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    new = copy.deepcopy(model)
    modes = {name: module.training for name, module in model.named_modules(remove_duplicate=False)}
    new.eval()
    _expose_functions(new)
    seen = _calibrate(new, inputs, _Axes(dim))
    if not seen:
        raise BadInputError("no activation module was used on the example; convert a model that has e.g. nn.GELU")
    reports = []
    for name, (module, record) in seen.items():
        rational, report = _fitted(name, module, record, groups, tolerance)
        like = next((p for p in new.parameters()), torch.empty(()))
        rational.to(device=like.device, dtype=like.dtype if like.dtype.is_floating_point else None)
        for parent, child in _places(new, module):
            setattr(parent, child, rational)
            if identity:
                _precede(parent, child, groups)
        reports.append(report)
    with torch.no_grad():
        new.eval()
        after = _tensor(new(*inputs))
        was = [module.training for module in model.modules()]
        before = _tensor(model.eval()(*inputs))
        for module, mode in zip(model.modules(), was, strict=True):
            module.training = mode
    for name, module in new.named_modules():
        while name not in modes:  # a new one is as what it is part of
            name = name.rpartition(".")[0]
        module.training = modes[name]
    return Conversion(new, tuple(reports), float((after - before).abs().max()))


def _expose_functions(model: nn.Module) -> None:
    """Gives encoder layers their activation as a module, and leaves their fused path, which does not call it."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and not isinstance(module.activation, nn.Module):
            kind = {torch.nn.functional.relu: nn.ReLU, torch.nn.functional.gelu: nn.GELU}.get(module.activation)
            module.activation = kind() if kind else _Function(module.activation)
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0


def _calibrate(model: nn.Module, inputs: tuple[Any, ...], axes: _Axes) -> dict[str, tuple[nn.Module, _Seen]]:
    """The activations that are used, by name, with what they saw."""
    kinds: tuple[type[nn.Module], ...] = (*CONVERTED, _Function)
    records: dict[str, tuple[nn.Module, _Seen]] = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            records[name] = (module, _Seen(name, axes))
    layers = [module for module in model.modules() if isinstance(module, _WITH_CHANNELS)]
    handles = [module.register_forward_hook(axes) for module in layers]
    handles += [module.register_forward_pre_hook(record) for module, record in records.values()]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: pair for name, pair in records.items() if pair[1].values}


def _places(model: nn.Module, module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Every parent and name under which ``module`` is reached."""
    for parent in list(model.modules()):
        for child, value in list(parent._modules.items()):  # named_children leaves out repetitions
            if value is module:
                yield parent, child


def _precede(parent: nn.Module, child: str, groups: int) -> None:
    """Puts an identity rational before the linear layer whose output the activation ``child`` of ``parent`` gets."""
    if isinstance(parent, nn.Sequential):
        at = int(child) if child.isdigit() else -1
        name = str(at - 1) if at > 0 else ""
    else:
        name = "linear1" if isinstance(parent, nn.TransformerEncoderLayer) else "fc1"
    linear = getattr(parent, name, None) if name else None
    if isinstance(linear, nn.Linear):
        first = GroupRational(linear.in_features, group_count(linear.in_features, groups), "identity")
        setattr(parent, name, nn.Sequential(first.to(linear.weight), linear))


def _fitted(
    name: str, module: nn.Module, seen: _Seen, groups: int, tolerance: float
) -> tuple[GroupRational, Converted]:
    """The rational of lowest degree that is near enough to ``module`` on what it saw, or else the nearest."""
    label = type(module).__name__ if not isinstance(module, _Function) else str(module.function)
    if len(seen.shapes) > 1:
        widths = " and ".join(str(channels) for channels, _ in sorted(seen.shapes))
        raise BadInputError(f"activation '{name}' is used on {widths} channels; give each place a module of its own")
    if not (abs(seen.low) < float("inf") and abs(seen.high) < float("inf")):
        raise BadInputError(f"inputs of activation '{name}' are not finite on the example; use other data")
    ((channels, dim),) = seen.shapes
    pad = _WIDEN * (seen.high - seen.low) + 1e-3
    low, high = seen.low - pad, seen.high + pad
    function = _pure(module)
    sample = torch.cat(seen.values).quantile(torch.linspace(0, 1, 501, dtype=torch.float64))
    points = torch.cat([torch.linspace(low, high, 501, dtype=torch.float64), sample])
    check = torch.linspace(seen.low, seen.high, 4001, dtype=torch.float64)
    best: tuple[float, RationalFit] | None = None
    for degree in DEGREES[1:]:
        fit = fit_rational(function, degree, low, high, points.tolist())
        with torch.no_grad():
            trial = GroupRational(1, 1, fit, dtype=torch.float64)
            deviation = float((trial(check.unsqueeze(-1)).squeeze(-1) - function(check)).abs().max())
        if best is None or deviation < best[0]:
            best = (deviation, fit)
        if best[0] <= tolerance:
            break
    assert best is not None
    used = group_count(channels, groups)
    rational = GroupRational(channels, used, best[1], dim=dim)
    return rational, Converted(name, label, channels, used, seen.low, seen.high, best[1].degree, best[0])


def _pure(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """``module`` as a function that leaves its argument alone, even where it works in place."""

    def function(x: Tensor) -> Tensor:
        y: Tensor = module(x.clone())
        return y

    return function


def _tensor(output: Any) -> Tensor:
    """The first tensor of what a model returned."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output

"""What fused lowerings share: custom ops, autograd and the layer's class around kernels that are built per graph.

One custom op per direction, so that torch.compile sees ordinary operators. What the kernels do not cover is done by
the ``torch`` lowering of the same graph, which the layer's class derives from: other dtypes and devices, empty tensors,
inputs that are not 4-D, and double backward.
"""

import functools
import operator
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from layersearch.kernels.codegen.program import Program
from layersearch.primitives.canonical import structural_key
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering.program import LayerProgram, lower
from layersearch.primitives.lowering.torch_source import build_torch_layer, layer_class
from layersearch.primitives.running import running_moments

__all__ = ["BACKWARD", "FORWARD", "HALF", "FusedLayer", "Fusion"]

FORWARD, BACKWARD = "forward", "backward"
HALF = (torch.float16, torch.bfloat16)


class Kernel(Protocol):
    """The programs of a layer, ready to be run."""

    def run(
        self,
        name: str,
        layout: str,
        groups: int,
        x: Tensor,
        g: Tensor | None,
        inputs: Sequence[Tensor],
        given: Tensor | None,
        out: Tensor,
        results: Tensor,
        running: Sequence[Tensor] = (),
        momentum: float = 0.0,
    ) -> bool:
        """Runs the program ``name``; x, g and out ``[N, C, H, W]`` lie in the same layout, without gaps.

        Returns: whether it has moved ``running`` by ``momentum`` towards the program's tracked results.
        """


class Fusion:
    """One way to run programs: registers ``layersearch::<name>_forward`` and ``_backward``, makes classes of layers.

    Args:
        name: of the lowering.
        kernel: makes the kernels of the programs ``forward`` and ``backward``.
        covered: the tensor to compute with for an input of a layer, its parameters and buffers, and whether each of
            them is held per channel; None if the kernels do not cover it.
        pixels: layout in which images of one pixel are run: they lie alike in both.
    """

    def __init__(
        self,
        name: str,
        kernel: Callable[[Mapping[str, Program]], Kernel],
        covered: Callable[[Tensor, Sequence[Tensor], Sequence[bool]], Tensor | None],
        pixels: str,
    ) -> None:
        self.name, self.kernel, self.covered, self.pixels = name, kernel, covered, pixels
        self._modes: weakref.WeakValueDictionary[str, _Mode] = weakref.WeakValueDictionary()
        self.layer_class = functools.lru_cache(maxsize=256)(self._layer_class)
        self.forward, self.backward = _ops(self)

    def mode(self, graph: Graph, training: bool) -> "_Mode":
        """The one mode of that graph in this process."""
        return self._modes.setdefault(_key(graph, training), _Mode(self, graph, training))

    def named(self, key: str) -> "_Mode":
        return self._modes[key]

    def _layer_class(self, graph: Graph) -> Any:
        """Class of layers of a canonical graph: ``(num_features, groups=…)`` as in the ``torch`` lowering."""
        training = self.mode(graph, training=True)
        evaluation = self.mode(graph, training=False) if training.program.moments else training
        names = {"_graph": graph, "_lowering": self.name, "_training_mode": training, "_evaluation_mode": evaluation}
        return type("FusedLayer", (FusedLayer, layer_class(graph)), names)

    def build(self, graph: Graph, num_features: int, groups: int) -> nn.Module:
        """A layer, the kernels of its training mode made."""
        cls = self.layer_class(graph)
        _ = cls._training_mode.kernel
        layer: nn.Module = cls(num_features, groups=groups) if graph.uses_group_moments() else cls(num_features)
        return layer

    def layout(self, x: Tensor) -> tuple[Tensor, str]:
        """``x`` in one of the two layouts, copied if it has another."""
        _, channels, height, width = x.shape
        if height * width == 1:
            return x.contiguous(), self.pixels
        if x.is_contiguous():
            return x, "nchw"
        if x.is_contiguous(memory_format=torch.channels_last):
            return x, "nhwc"
        if channels > 1 and x.stride(1) == 1:  # a part of a channels_last tensor
            return x.contiguous(memory_format=torch.channels_last), "nhwc"
        return x.contiguous(), "nchw"


class _Mode:
    """A canonical graph in one mode: its programs, and its kernels once they are needed.

    ``key`` names it to the ops, which take no objects; it lives as long as a layer's class, or a backward pass to come.
    """

    def __init__(self, fusion: Fusion, graph: Graph, training: bool) -> None:
        self.fusion, self.graph, self.training = fusion, graph, training
        self.program: LayerProgram = lower(graph, training=training)
        self.key = _key(graph, training)
        self.names = (*self.program.inputs, *self.program.moments)
        self.pick = operator.itemgetter(*self.names)
        buffers = {moment.name: moment.per_channel for moment in running_moments(graph)}
        self.per_channel = tuple(buffers.get(name, True) for name in self.names)

    @functools.cached_property
    def kernel(self) -> Kernel:
        return self.fusion.kernel({FORWARD: self.program.forward, BACKWARD: self.program.backward})


def _key(graph: Graph, training: bool) -> str:
    return f"{structural_key(graph)}-{'train' if training else 'eval'}"


def _like(x: Tensor, t: Tensor) -> Tensor:
    """``t`` in the layout of ``x``."""
    return t if t.stride() == x.stride() else torch.empty_like(x).copy_(t)


def _compute(
    x: Tensor, inputs: Sequence[Tensor], mode: _Mode, groups: int, running: Sequence[Tensor] = (), momentum: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The layer, and the statistics that backward and the running moments need, in one flat tensor."""
    x, layout = mode.fusion.layout(x)
    y, program = torch.empty_like(x), mode.program.forward
    statistics = x.new_empty(program.layout.size(x.shape[0], x.shape[1]), dtype=torch.float32)
    held = [t.contiguous() for t in inputs]
    if not mode.kernel.run(FORWARD, layout, groups, x, None, held, None, y, statistics, running, momentum):
        _move(running, momentum, program, x, statistics)
    return y, statistics


@torch.no_grad()
def _move(running: Sequence[Tensor], momentum: float, program: Program, x: Tensor, statistics: Tensor) -> None:
    """Moves buffers towards the moments of a batch ``x`` that they follow."""
    for buffer, k in zip(running, program.tracked, strict=False):
        start = program.layout.offset(k, x.shape[0], x.shape[1])
        buffer.lerp_(statistics[start : start + buffer.numel()].to(buffer), momentum)


def _differentiate(
    g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor], mode: _Mode, groups: int
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of the parameters ``[n_params, C]``."""
    x, layout = mode.fusion.layout(x)
    dx = torch.empty_like(x)
    gradients = x.new_empty((mode.program.n_params, x.shape[1]), dtype=torch.float32)
    held = [t.contiguous() for t in inputs]
    g = _like(x, g)
    mode.kernel.run(BACKWARD, layout, groups, x, g, held, statistics, dx, gradients)
    return dx, gradients


def _ops(fusion: Fusion) -> tuple[Any, Any]:
    """The custom ops of a fusion, with their shapes and their derivative."""

    def forward(x: Tensor, inputs: Sequence[Tensor], mode: str, groups: int) -> tuple[Tensor, Tensor]:
        return _compute(x, inputs, fusion.named(mode), groups)

    def backward(
        g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor], mode: str, groups: int
    ) -> tuple[Tensor, Tensor]:
        return _differentiate(g, x, statistics, inputs, fusion.named(mode), groups)

    forward_op = torch.library.custom_op(f"layersearch::{fusion.name}_forward", forward, mutates_args=())
    backward_op = torch.library.custom_op(f"layersearch::{fusion.name}_backward", backward, mutates_args=())

    def forward_shapes(x: Tensor, inputs: Sequence[Tensor], mode: str, groups: int) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(fusion.layout(x)[0])
        size = fusion.named(mode).program.forward.layout.size(x.shape[0], x.shape[1])
        return y, x.new_empty(size, dtype=torch.float32)

    def backward_shapes(
        g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor], mode: str, groups: int
    ) -> tuple[Tensor, Tensor]:
        dx = torch.empty_like(fusion.layout(x)[0])
        return dx, x.new_empty(fusion.named(mode).program.n_params, x.shape[1], dtype=torch.float32)

    def save(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor], str, int], output: tuple[Tensor, Tensor]) -> None:
        x, parameters, ctx.mode, ctx.groups = inputs
        ctx.save_for_backward(x, output[1], *parameters)

    def gradients(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, list[Tensor | None], None, None]:
        x, statistics, *inputs = ctx.saved_tensors
        dx, stacked = backward_op(g, x, statistics, inputs, ctx.mode, ctx.groups)
        return dx, _for_inputs(stacked.unbind(), inputs), None, None

    forward_op.register_fake(forward_shapes)
    backward_op.register_fake(backward_shapes)
    forward_op.register_autograd(gradients, setup_context=save)
    return forward_op, backward_op


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs as much as a small layer; can be differentiated twice."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mode: _Mode, groups: int, running: Sequence[Tensor], momentum: float, *inputs: Tensor
    ) -> Tensor:
        y, statistics = _compute(x, inputs, mode, groups, running, momentum)
        ctx.mode, ctx.groups = mode, groups
        ctx.save_for_backward(x, statistics, *inputs)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, statistics, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            dx, *gradients = _differentiable(ctx.mode, g, x, inputs, ctx.groups)
        else:
            dx, stacked = _differentiate(g, x, statistics, inputs, ctx.mode, ctx.groups)
            gradients = list(stacked.unbind())
        return dx, None, None, None, None, *_for_inputs(gradients, inputs)


def _is_watched() -> bool:
    """Whether somebody looks on who has to see torch's own operations: a tracer, torch.func, forward-mode AD."""
    return (
        torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


_apply = super(torch.autograd.Function, _Eager).apply
"""``_Eager.apply`` without what it does for ``torch.func``, which does not get here: 5 % of a small layer's time."""


def _without_gradient(
    x: Tensor, mode: _Mode, groups: int, running: Sequence[Tensor], momentum: float, *inputs: Tensor
) -> Tensor:
    return _compute(x, inputs, mode, groups, running, momentum)[0]


def _for_inputs(gradients: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of the parameters, in their dtypes, and None for the buffers behind them."""
    found = [g if t.dtype is torch.float32 else g.to(t.dtype) for g, t in zip(gradients, inputs, strict=False)]
    return [*found, *[None] * (len(inputs) - len(gradients))]


def _differentiable(mode: _Mode, g: Tensor, x: Tensor, inputs: list[Tensor], groups: int) -> list[Tensor]:
    """The gradients by the ``torch`` lowering in float32, as a graph that can be differentiated again."""
    names, n_params = mode.program.inputs, mode.program.n_params
    layer = build_torch_layer(mode.graph, x.shape[1], groups)
    layer.train(mode.training)
    wanted = [t if t.requires_grad else t.detach().requires_grad_(True) for t in (x, *inputs[:n_params])]
    with torch.enable_grad():
        parts = dict(zip(names, [t.float() for t in (*wanted[1:], *inputs[n_params:])], strict=True))
        y = torch.func.functional_call(layer, parts, (wanted[0].float(),))
        grads = torch.autograd.grad(y, wanted, g.float(), create_graph=True, allow_unused=True, materialize_grads=True)
    return list(grads)


class FusedLayer(nn.Module):
    """Mixed into the ``torch`` lowering's class of a graph: what its fusion covers goes through the kernels.

    Parameters, buffers and their updates are those of the ``torch`` lowering. float16 and bfloat16 inputs are computed
    in float32 and returned in their dtype.
    """

    _graph: Graph
    _training_mode: _Mode
    _evaluation_mode: _Mode
    groups = 1
    momentum = 0.0

    def forward(self, input: Tensor) -> Tensor:
        mode = self._training_mode if self.training else self._evaluation_mode
        is_traced = torch.compiler.is_compiling()
        held = self._attributes(mode.names) if is_traced else self._held(mode)
        x = mode.fusion.covered(input, held, mode.per_channel) if is_traced or not _is_watched() else None
        if x is None:
            plain: Tensor = super().forward(input)
            return plain
        y: Tensor
        n_inputs = len(mode.program.inputs)
        inputs, running = held[:n_inputs], held[n_inputs:]
        if is_traced or type(x) is not Tensor:
            y, statistics = mode.fusion.forward(x, inputs, mode.key, self.groups)
            if running:
                _move(running, self.momentum, mode.program.forward, x, statistics)
        else:
            compute = _apply if torch.is_grad_enabled() else _without_gradient
            own = torch._C._functorch.unwrap_if_dead(x)
            y = compute(own, mode, self.groups, running, self.momentum, *inputs)
        return y if x is input else y.to(input.dtype)

    def _held(self, mode: _Mode) -> tuple[Tensor, ...]:
        """Parameters and buffers of a mode, from where modules keep them: attributes take ten times as long."""
        try:
            held: tuple[Tensor, ...] = mode.pick(self._parameters | self._buffers)
        except KeyError:  # computed by a parametrization, for one
            held = self._attributes(mode.names)
        return held

    def _attributes(self, names: Sequence[str]) -> tuple[Tensor, ...]:
        return tuple([getattr(self, name) for name in names])

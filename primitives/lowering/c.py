"""The ``c`` lowering: fused C for float32 on the CPU, built once per graph for all shapes.

One custom op per direction, so that torch.compile sees ordinary operators. What the kernels do not cover is done by
the ``torch`` lowering of the same graph, which the layer's class derives from: other dtypes and devices, empty tensors,
inputs that are not 4-D, and double backward.
"""

import functools
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.kernels.codegen._compile import find_compiler
from layersearch.kernels.codegen.c_kernel import CKernel, build_seconds
from layersearch.primitives.canonical import structural_key
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering.base import LOWERINGS, Lowering
from layersearch.primitives.lowering.program import LayerProgram, lower
from layersearch.primitives.lowering.torch_source import build_torch_layer, layer_class

__all__ = ["FusedLayer", "why_unavailable"]

_FORWARD, _BACKWARD = "forward", "backward"
_HALF = (torch.float16, torch.bfloat16)


class _Mode:
    """A canonical graph in one mode: its programs, and its kernel once it is needed.

    ``key`` names it to the ops, which take no objects; it lives as long as a layer's class, or a backward pass to come.
    """

    def __init__(self, graph: Graph, training: bool) -> None:
        self.graph, self.training = graph, training
        self.program: LayerProgram = lower(graph, training=training)
        self.key = _key(graph, training)

    @functools.cached_property
    def kernel(self) -> CKernel:
        return CKernel({_FORWARD: self.program.forward, _BACKWARD: self.program.backward})


_modes: "weakref.WeakValueDictionary[str, _Mode]" = weakref.WeakValueDictionary()


def _key(graph: Graph, training: bool) -> str:
    return f"{structural_key(graph)}-{'train' if training else 'eval'}"


def _mode(graph: Graph, training: bool) -> _Mode:
    """The one mode of that key in this process."""
    return _modes.setdefault(_key(graph, training), _Mode(graph, training))


def _layout(x: Tensor) -> tuple[Tensor, str]:
    """``x`` in one of the two layouts, copied if it has another. Single pixels are rows of channels in both."""
    if x.shape[2] * x.shape[3] > 1 and x.is_contiguous():
        return x, "nchw"
    if x.is_contiguous(memory_format=torch.channels_last):
        return x, "nhwc"
    return x.contiguous(), "nchw" if x.shape[2] * x.shape[3] > 1 else "nhwc"


def _like(x: Tensor, t: Tensor) -> Tensor:
    """``t`` in the layout of ``x``."""
    if t.stride() == x.stride():
        return t
    copied = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    return copied.copy_(t)


def _compute(x: Tensor, inputs: Sequence[Tensor], mode: _Mode, groups: int) -> tuple[Tensor, Tensor]:
    """The layer, and the statistics that backward and the running moments need, in one flat tensor."""
    x, layout = _layout(x)
    y = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    statistics = torch.empty(mode.program.forward.layout.size(x.shape[0], x.shape[1]))
    _run(mode.kernel, _FORWARD, layout, groups, x, None, inputs, None, y, statistics)
    return y, statistics


def _differentiate(
    g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor], mode: _Mode, groups: int
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of the parameters ``[n_params, C]``."""
    x, layout = _layout(x)
    dx = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    gradients = torch.empty(mode.program.n_params, x.shape[1])
    _run(mode.kernel, _BACKWARD, layout, groups, x, _like(x, g), inputs, statistics, dx, gradients)
    return dx, gradients


def _run(
    kernel: CKernel,
    name: str,
    layout: str,
    groups: int,
    x: Tensor,
    g: Tensor | None,
    inputs: Sequence[Tensor],
    given: Tensor | None,
    out: Tensor,
    results: Tensor,
) -> None:
    n, channels, height, width = x.shape
    held = [t.contiguous() for t in inputs]
    work = torch.empty(kernel.workspace(name, n, channels))
    kernel.run(
        name,
        layout,
        (n, channels, height * width, groups),
        [t.data_ptr() for t in held],
        x=x.data_ptr(),
        g=0 if g is None else g.data_ptr(),
        given=0 if given is None else given.data_ptr(),
        out=out.data_ptr(),
        results=results.data_ptr(),
        work=work.data_ptr(),
    )


@torch.library.custom_op("layersearch::c_forward", mutates_args=())
def _forward(x: Tensor, inputs: Sequence[Tensor], mode: str, groups: int) -> tuple[Tensor, Tensor]:
    return _compute(x, inputs, _modes[mode], groups)


@torch.library.custom_op("layersearch::c_backward", mutates_args=())
def _backward(
    g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor], mode: str, groups: int
) -> tuple[Tensor, Tensor]:
    return _differentiate(g, x, statistics, inputs, _modes[mode], groups)


@_forward.register_fake
def _forward_shapes(x: Tensor, inputs: Sequence[Tensor], mode: str, groups: int) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(_layout(x)[0])
    return y, x.new_empty(_modes[mode].program.forward.layout.size(x.shape[0], x.shape[1]))


@_backward.register_fake
def _backward_shapes(
    g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor], mode: str, groups: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_layout(x)[0]), x.new_empty(_modes[mode].program.n_params, x.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor], str, int], output: tuple[Tensor, Tensor]) -> None:
    x, parameters, ctx.mode, ctx.groups = inputs
    ctx.save_for_backward(x, output[1], *parameters)


def _gradients(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, list[Tensor | None], None, None]:
    x, statistics, *inputs = ctx.saved_tensors
    dx, stacked = _backward(g, x, statistics, inputs, ctx.mode, ctx.groups)
    return dx, _for_inputs(stacked.unbind(), inputs), None, None


_forward.register_autograd(_gradients, setup_context=_save)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher, which costs as much as a small layer; can be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mode: _Mode, groups: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        y, statistics = _compute(x, inputs, mode, groups)
        ctx.mode, ctx.groups = mode, groups
        ctx.save_for_backward(x, statistics, *inputs)
        ctx.mark_non_differentiable(statistics)
        return y, statistics

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, statistics, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            dx, *gradients = _differentiable(ctx.mode, g, x, inputs, ctx.groups)
        else:
            dx, stacked = _differentiate(g, x, statistics, inputs, ctx.mode, ctx.groups)
            gradients = list(stacked.unbind())
        return dx, None, None, *_for_inputs(gradients, inputs)


def _without_gradient(x: Tensor, mode: _Mode, groups: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    return _compute(x, inputs, mode, groups)


def _for_inputs(gradients: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of the parameters, and None for the buffers behind them."""
    return [*gradients, *[None] * (len(inputs) - len(gradients))]


def _differentiable(mode: _Mode, g: Tensor, x: Tensor, inputs: list[Tensor], groups: int) -> list[Tensor]:
    """The gradients by the ``torch`` lowering, as a graph that can be differentiated again."""
    names, n_params = mode.program.inputs, mode.program.n_params
    layer = build_torch_layer(mode.graph, x.shape[1], groups)
    layer.train(mode.training)
    wanted = [t if t.requires_grad else t.detach().requires_grad_(True) for t in (x, *inputs[:n_params])]
    parts = dict(zip(names, [*wanted[1:], *inputs[n_params:]], strict=True))
    with torch.enable_grad():
        y = torch.func.functional_call(layer, parts, (wanted[0],))
        found = torch.autograd.grad(y, wanted, g, create_graph=True, allow_unused=True, materialize_grads=True)
    return list(found)


class FusedLayer(nn.Module):
    """Mixed into the ``torch`` lowering's class of a graph: float32 on the CPU goes through the kernels.

    Parameters, buffers and their updates are those of the ``torch`` lowering. float16 and bfloat16 inputs are computed
    in float32 and returned in their dtype.
    """

    _graph: Graph
    _training_mode: _Mode
    _evaluation_mode: _Mode

    def forward(self, input: Tensor) -> Tensor:
        mode = self._training_mode if self.training else self._evaluation_mode
        program = mode.program
        inputs = [getattr(self, name) for name in program.inputs]
        x = input.float() if input.dtype in _HALF else input
        if not (_is_covered(x) and all(t.dtype is torch.float32 and t.device.type == "cpu" for t in inputs)):
            plain: Tensor = super().forward(input)
            return plain
        groups = getattr(self, "groups", 1)
        if type(x) is Tensor and not torch.compiler.is_compiling():
            compute = _Eager.apply if torch.is_grad_enabled() else _without_gradient
            y, statistics = compute(x, mode, groups, *inputs)
        else:
            y, statistics = _forward(x, inputs, mode.key, groups)
        layout = program.forward.layout
        for name, k in program.moments:
            running = getattr(self, name)
            start = layout.offset(k, x.shape[0], x.shape[1])
            running.lerp_(statistics[start : start + running.numel()].to(running), self.momentum)
        return y if x is input else y.to(input.dtype)


def _is_covered(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.device.type == "cpu" and x.dim() == 4 and x.numel() > 0


@functools.lru_cache(maxsize=256)
def _class(graph: Graph) -> Any:
    training = _mode(graph, training=True)
    evaluation = _mode(graph, training=False) if training.program.moments else training
    names = {"_graph": graph, "_training_mode": training, "_evaluation_mode": evaluation}
    return type("FusedLayer", (FusedLayer, layer_class(graph)), names)


def why_unavailable() -> str | None:
    """Why kernels cannot be built on this machine, or None."""
    compiler = find_compiler()
    return compiler if isinstance(compiler, str) else None


def _build(graph: Graph, num_features: int, groups: int) -> nn.Module:
    """The layer, its training kernel built. Without a compiler: the ``torch`` lowering, said once."""
    reason = why_unavailable()
    if reason is not None:
        _say_once(reason)
        return build_torch_layer(graph, num_features, groups)
    cls = _class(graph)
    _ = cls._training_mode.kernel
    layer: nn.Module = cls(num_features, groups=groups) if graph.uses_group_moments() else cls(num_features)
    return layer


@functools.cache
def _say_once(reason: str) -> None:
    warnings.warn(f"layers are run by the torch lowering, which is slower: {reason}", RuntimeWarning, stacklevel=4)


def _build_seconds(graph: Graph) -> float:
    program = lower(graph, training=True)
    return build_seconds({_FORWARD: program.forward, _BACKWARD: program.backward})


LOWERINGS.add("c", Lowering("c", _build, why_unavailable, devices=("cpu",), build_seconds=_build_seconds))

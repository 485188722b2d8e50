"""Text of the triton format: the plain class, the class that the kernels run, autograd, and the kernels themselves."""

import hashlib
from collections.abc import Mapping, Sequence

from layersearch.kernels.codegen.triton_file import TritonFile, size
from layersearch.primitives.graph import LEAVES, Graph
from layersearch.primitives.lowering.program import LayerProgram, lower
from layersearch.primitives.lowering.torch_source import layer_source
from layersearch.primitives.printing import formula
from layersearch.search.export._docstring import class_doc, module_doc
from layersearch.search.export.base import Subject

__all__ = ["triton_text"]

_PLAIN_IMPORTS = "import torch\nfrom torch import Tensor, nn\n"
_NEEDS = "Needs torch 2.4 or newer; on a GPU, Triton 3.6 or newer makes it fast."
_CONTENT = """\
In this file: the layer in plain torch, which says what it is; the same layer run by Triton kernels; how torch
calls these; which kernels are started, in order; the kernels, generated from the formula (forward) and from its
derivative (backward); and in how many programs of what size they are started."""
_IMPORTS = """
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

try:
    import triton
    import triton.language as tl
    from triton import knobs
except ImportError:  # the layer is then run by plain torch everywhere
    triton = knobs = None
"""
_LAYER = '''
class {name}({plain}):
    """{doc}

    The layer to use: parameters, buffers and arguments are those of the plain class. On a GPU it is run by the Triton
    kernels below, for tensors ``[N, C, H, W]`` of float32, bfloat16 or float16, computed in float32. All else is run by
    the plain class: other devices and dtypes, empty tensors, gradients of gradients, and where Triton is missing.
    """

    def forward(self, input: Tensor) -> Tensor:
        {inputs}
        if not _is_covered(input, inputs):
            return super().forward(input)
        {call}
        return y


{alias}_NAMES = {names}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_DEVICE = "cpu" if knobs is not None and knobs.runtime.interpret else "cuda"
"""Where ``TRITON_INTERPRET=1`` is set, the kernels are interpreted on the CPU: slow, and meant for tests."""


def _is_covered(x: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether the kernels can run on these tensors; they count planes and elements of a sample in 32 bits."""
    if triton is None or x.device.type != _DEVICE or x.dim() != 4 or x.numel() == 0:
        return False
    n, c, h, w = x.shape
    if c != inputs[0].numel() or max(n * c, c * h * w) >= 2**31:
        return False
    return all(t.dtype in _DTYPES and t.device == x.device for t in (x, *inputs))


def _run(x: Tensor, inputs: Sequence[Tensor]{typed}) -> tuple[Tensor, Tensor]:
    """The output, and what forward computed of planes and channels, in one flat tensor."""
    if type(x) is not Tensor or torch.compiler.is_compiling():
        return _forward_op(x, inputs{passed})
    if torch.is_grad_enabled():
        return _Fused.apply(x{passed}, *inputs)
    return _forward(x, inputs{passed})


def _dense(x: Tensor) -> Tensor:
    """``x`` without gaps, NCHW or channels_last, copied if it is neither."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    is_part = x.shape[1] > 1 and x.stride(1) == 1 and x.shape[2] * x.shape[3] > 1  # of a channels_last tensor
    return x.contiguous(memory_format=torch.channels_last if is_part else torch.contiguous_format)


def _sizes(x: Tensor{grouped_typed}) -> Sizes:
    n, c, h, w = x.shape
    return Sizes(n, c, h * w, c{per_group}, x.element_size(), nhwc=not x.is_contiguous())


def _n_statistics(x: Tensor{moded_typed}) -> int:
    n, c = x.shape[:2]
    return {n_statistics}


def _forward(x: Tensor, inputs: Sequence[Tensor]{typed}) -> tuple[Tensor, Tensor]:
    x = _dense(x)
    y = torch.empty_like(x)
    statistics = torch.empty(_n_statistics(x{moded}), dtype=torch.float32, device=x.device)
    inputs = [t.contiguous() for t in inputs]
    with torch.cuda.device_of(x):
        {forward}(_sizes(x{grouped}), x, y, statistics, inputs)
    return y, statistics


def _backward(
    g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor]{typed}
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of {params} ``[{n_params}, C]``."""
    x = _dense(x)
    g = g if g.stride() == x.stride() else torch.empty_like(x, dtype=g.dtype).copy_(g)
    dx = torch.empty_like(x)
    gradients = torch.empty({n_params}, x.shape[1], dtype=torch.float32, device=x.device)
    inputs = [t.contiguous() for t in inputs]
    with torch.cuda.device_of(x):
        {backward}(_sizes(x{grouped}), x, g, statistics, dx, gradients, inputs)
    return dx, gradients


def _plain_gradients(g: Tensor, x: Tensor, inputs: Sequence[Tensor]{typed}) -> tuple[Tensor, ...]:
    """The same gradients by the plain layer, as a graph that can be differentiated again."""
    layer = {plain}(x.shape[1]{groups_argument}).to(x.device){mode}
    wanted = [t if t.requires_grad else t.detach().requires_grad_() for t in (x, *inputs[:{n_params}])]
    with torch.enable_grad():
        held = zip(_NAMES, [t.float() for t in (*wanted[1:], *inputs[{n_params}:])])
        y = torch.func.functional_call(layer, dict(held), (wanted[0].float(),))
        return torch.autograd.grad(y, wanted, g.float(), create_graph=True, allow_unused=True, materialize_grads=True)


def _for_inputs(gradients: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of the parameters in their dtypes{none_for_buffers}."""
    found = [d.to(t.dtype) for d, t in zip(gradients, inputs)]
    return [*found, *[None] * (len(inputs) - len(found))]


class _Fused(torch.autograd.Function):
    """The layer with its derivative, without what a registered operator costs at every call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, {arguments}*inputs: Tensor) -> tuple[Tensor, Tensor]:
        y, statistics = _forward(x, inputs{passed})
        ctx.settings = ({settings})
        ctx.save_for_backward(x, statistics, *inputs)
        ctx.mark_non_differentiable(statistics)
        return y, statistics

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, statistics, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            dx, *gradients = _plain_gradients(g, x, inputs, *ctx.settings)
        else:
            dx, gradients = _backward(g, x, statistics, inputs, *ctx.settings)
        return dx, {nones}*_for_inputs(gradients, inputs)


# The same as operators of torch, one for each direction, for torch.compile and subclasses of Tensor.

_forward_op = torch.library.custom_op("{library}::forward", _forward, mutates_args=())
_backward_op = torch.library.custom_op("{library}::backward", _backward, mutates_args=())


@_forward_op.register_fake
def _(x: Tensor, inputs: Sequence[Tensor]{typed}) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_dense(x)), x.new_empty(_n_statistics(x{moded}), dtype=torch.float32)


@_backward_op.register_fake
def _(g: Tensor, x: Tensor, statistics: Tensor, inputs: Sequence[Tensor]{typed}) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_dense(x)), x.new_empty({n_params}, x.shape[1], dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, tensors, *ctx.settings = inputs
    ctx.save_for_backward(x, output[1], *tensors)


def _differentiate(ctx: Any, g: Tensor, _: Tensor) -> tuple[Any, ...]:
    x, statistics, *inputs = ctx.saved_tensors
    dx, gradients = _backward_op(g, x, statistics, inputs, *ctx.settings)
    return dx, _for_inputs(gradients, inputs), {op_nones}


_forward_op.register_autograd(_differentiate, setup_context=_save)
'''


def triton_text(subject: Subject) -> str:
    """The whole file: docstring, ``__all__``, both classes, ``Layer`` as an alias of the fast one, and the kernels."""
    graph, name = subject.graph, subject.class_name
    plain = f"Plain{name}"
    doc = class_doc(formula(graph))
    source = layer_source(graph, class_name=plain, doc=doc).removeprefix(_PLAIN_IMPORTS).strip("\n")
    training, evaluation = lower(graph, training=True), lower(graph, training=False)
    modes = {"train_": training, "eval_": evaluation} if training.moments else {"": training}
    file = TritonFile()
    for mode, program in modes.items():
        _add(file, mode, program, graph)
    layer = _layer(subject, plain, doc, training, evaluation, graph.uses_group_moments())
    names = f'__all__ = ["{name}", "Layer"]' if name < "Layer" else f'__all__ = ["Layer", "{name}"]'
    whole = "\n\n\n".join([source, layer, file.starts(), file.kernels()])
    library = f"{name.lower()}_{hashlib.sha256(whole.encode()).hexdigest()[:12]}"
    head = f'"""{module_doc(subject, _NEEDS, _CONTENT)}"""\n{_IMPORTS}\n{names}\n'
    rules = "# How kernels are started: programs, tiles and warps, by the sizes.\n\n" + file.rules()
    return f"{head}\n\n{whole.replace(_LIBRARY, library)}\n\n\n{rules}"


_LIBRARY = "library of this file"


def _add(file: TritonFile, mode: str, program: LayerProgram, graph: Graph) -> None:
    where = {"train_": " in training", "eval_": " in eval mode", "": ""}[mode]
    forward = {"x_ptr": "x", "out_ptr": "y", "results_ptr": "statistics"}
    file.add(
        f"{mode}forward",
        program.forward,
        forward,
        program.inputs,
        f"The layer{where}.",
        _notes(graph, program.forward_nodes),
    )
    backward = {"x_ptr": "x", "g_ptr": "g", "given_ptr": "statistics", "out_ptr": "dx", "results_ptr": "gradients"}
    notes = _notes(graph, program.backward_nodes)
    file.add(f"{mode}backward", program.backward, backward, program.inputs, f"Its gradients{where}.", notes)


def _notes(graph: Graph, nodes: Mapping[int, int]) -> dict[int, str]:
    """Formulas of the statements that are ops of the graph."""
    parts = {k: i for k, i in nodes.items() if graph.nodes[i].op not in LEAVES and i != graph.output}
    notes = {k: formula(Graph(graph.nodes[: i + 1], graph.numerics)) for k, i in parts.items()}
    return notes | {k: "f(x)" for k, i in nodes.items() if i == graph.output}


def _layer(
    subject: Subject, plain: str, doc: str, training: LayerProgram, evaluation: LayerProgram, grouped: bool
) -> str:
    """From the class that is used to its operators."""
    moded = bool(training.moments)
    n_params = training.n_params
    settings = {"training": "bool"} if moded else {}
    settings |= {"groups": "int"} if grouped else {}
    typed = {word: f", {word}: {kind}" for word, kind in settings.items()}
    passed = "".join(f", {word}" for word in settings)
    sizes = [size(mode.forward.layout, "n", "c") for mode in (training, evaluation)]
    nones = "None, " * len(settings)
    words: Mapping[str, str] = {
        "name": subject.class_name,
        "alias": f"Layer = {subject.class_name}\n\n",
        "plain": plain,
        "doc": doc,
        "inputs": _inputs(training, evaluation, moded),
        "call": "\n".join(_call(training, settings)).replace("\n", "\n        "),
        "typed": "".join(typed.values()),
        "passed": passed,
        "arguments": "".join(f"{word}: {kind}, " for word, kind in settings.items()),
        "settings": ", ".join(settings) + "," * (len(settings) == 1),
        "nones": nones,
        "op_nones": nones.rstrip(", "),
        "moded": ", training" if moded else "",
        "moded_typed": typed.get("training", ""),
        "mode": ".train(training)" if moded else "",
        "grouped": ", groups" if grouped else "",
        "grouped_typed": typed.get("groups", ""),
        "groups_argument": ", groups=groups" if grouped else "",
        "per_group": " // groups" if grouped else "",
        "n_statistics": sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]} if training else {sizes[1]}",
        "forward": "(train_forward if training else eval_forward)" if moded else "forward",
        "backward": "(train_backward if training else eval_backward)" if moded else "backward",
        "n_params": str(n_params),
        "params": ", ".join(training.inputs[:n_params]),
        "names": _tuple(evaluation.inputs),
        "none_for_buffers": ", and None for buffers" if moded else "",
        "library": _LIBRARY,
    }
    return _LAYER.strip("\n").format_map(words)


def _tuple(words: Sequence[str]) -> str:
    return f"({', '.join(repr(word) for word in words)})".replace("'", '"')


def _inputs(training: LayerProgram, evaluation: LayerProgram, moded: bool) -> str:
    """Statements that gather parameters and, in eval mode, buffers."""
    always = f"inputs = [{', '.join(f'self.{word}' for word in training.inputs)}]"
    buffers = ", ".join(f"self.{word}" for word in evaluation.inputs[training.n_params :])
    return f"{always}\n        if not self.training:\n            inputs += [{buffers}]" if moded else always


def _call(training: LayerProgram, settings: Mapping[str, str]) -> list[str]:
    """Statements that run the kernels and move the running moments."""
    run = f"_run(input, inputs{''.join(f', self.{word}' for word in settings)})"
    if not training.moments:
        return [f"y, _ = {run}"]
    lines = [f"y, statistics = {run}", "if self.training:", "    n, c = input.shape[:2]"]
    layout = training.forward.layout
    for name, k in zip(training.moments, training.forward.tracked, strict=True):
        n_nc, n_c, n_n, n_1 = layout.places[k]
        first = " + ".join(f"{count} * {what}" for count, what in ((n_nc, "n * c"), (n_c, "c"), (n_n, "n")) if count)
        first = " + ".join(part for part in (first, str(n_1) if n_1 else "") if part) or "0"
        width = "c" if layout.cells[k][1] else "1"
        lines.append(f"    self._track(self.{name}, statistics[{first} :][:{width}])")
    return lines

"""Mixed-basis layers as classes of a plain torch module: one per basis in use, and the layer that sorts its nodes."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from layersearch.primitives.basis import Basis
from layersearch.primitives.layers.mixed import MixedKANConv2d, MixedKANLinear
from layersearch.spaces.kan.basis_source import basis_arguments, basis_source, literal
from layersearch.spaces.kan.layer_source import (
    ACTIVATIONS,
    WIDTH,
    DomainSource,
    call_text,
    indented,
    signature_text,
)
from layersearch.spaces.kan.network import LayerPlan

__all__ = ["conv_class", "layer_call", "layer_class", "space_classes"]

MixedLayer: TypeAlias = MixedKANLinear | MixedKANConv2d
_LAYER_NORM = "layernorm"

_SPACE = '''class {name}(nn.Module):
    """Functions f_k(u) of every input, ``[..., I] -> [..., K, I]``.

    f: {about}.
    u: {domain}.
    """

{signature}
        super().__init__()
{setup}

    def forward(self, input: Tensor) -> Tensor:
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
{columns}
        return f.to(input.dtype)
'''

_LAYER = '''class {name}(nn.Module):
    """{formula}.
{places}
    The f_k are those of the space of node i. Nodes are sorted by space, and all features meet the outputs in one
    {product}. Weights start normal.

    Args:
        choice: number of the space of each node.
        spaces: those that are chosen, by ascending number.
        deviations: of the weights of each space at the start, by function.
    """

{signature}
        super().__init__()
        self.members = [choice.count(m) for m in sorted(set(choice))]
        self.register_buffer("choice", torch.tensor(choice))
        self.order = sorted(range(len(choice)), key=lambda i: choice[i])
        self.spaces = nn.ModuleList(spaces)
{setup}
        spread = [torch.tensor(d).repeat_interleave(n) for d, n in zip(deviations, self.members)]
{base_spread}        spread = torch.cat(spread)
        self.weight = nn.Parameter({start})
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.to(torch.get_default_dtype())

    def forward(self, {argument}: Tensor) -> Tensor:
        x = {taken}[..., self.order]
{normalise}
        parts = zip(self.spaces, {nodes}.split(self.members, -1))
        f = [space(part).flatten(-2) for space, part in parts]
{base_features}        return {returned}
'''


@dataclass(frozen=True)
class _Form:
    """What differs between the layers; ``{base_term}`` and ``{x}`` are filled in."""

    name: str
    formula: str
    product: str
    start: str
    argument: str
    taken: str
    returned: str
    places: str = ""
    parameters: tuple[str, ...] = ()
    setup: str = ""


_LINEAR_FORM = _Form(
    name="MixedKANLinear",
    formula="y_o = sum_i (sum_k w[o, k, i] f_k(x_i){base_term}) + c_o, ``[..., I] -> [..., O]``",
    product="product",
    start="torch.randn(out_features, len(spread)) * spread",
    argument="x",
    taken="x",
    returned="F.linear(torch.cat(f, -1), self.weight, self.bias)",
)
_CONV_FORM = _Form(
    name="MixedKANConv2d",
    formula="y_o = sum_ip (sum_k w[o, k, i, p] f_k(x_ip){base_term}) + c_o, ``[N, I, H, W] -> [N, O, H, W]``",
    product="convolution",
    start="torch.randn(out_features, len(spread), kernel, kernel) * spread.view(-1, 1, 1)",
    argument="image",
    taken="image.movedim(1, -1)",
    returned="F.conv2d(torch.cat(f, -1).movedim(-1, 1), self.weight, self.bias, padding=self.padding)",
    places="\n    p: the places of the kernel; nothing is summed beyond the image. Nodes are channels.\n",
    parameters=("kernel: int",),
    setup="        self.padding = kernel // 2",
)

_NORMALISED = "normalised"


def space_classes(layers: Sequence[MixedLayer], domain: str) -> tuple[str, dict[str, str]]:
    """Constants of the bases in use, with the blank lines that follow, and their classes by name.

    Args:
        layers: of one genome.
        domain: that it has for them.
    """
    rows = {layer.pool[m].name: layer.pool[m] for layer in layers for m in layer.used}
    constants: dict[str, None] = {}
    classes: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(rows):
        row = rows[name]
        own = domain if domain == _LAYER_NORM else layers[-1].domain or row.domain
        constant, classes[_class_name(row)] = _space_class(row, own, taken)
        if constant:
            constants[constant] = None
    return "\n".join(constants) + "\n\n\n" if constants else "\n", classes


def _space_class(row: Basis, domain: str, taken: set[str]) -> tuple[str, str]:
    """Constants and class of a basis.

    Args:
        taken: names of constants that the file has already, to which those of this class are added.
    """
    source = basis_source(row)
    plan = LayerPlan(2, 1, row, None, domain, "variance")
    mapped = DomainSource(plan)
    setup, lines, about = mapped.setup, mapped.lines, mapped.about
    if domain == _LAYER_NORM:
        low, high = row.interval
        setup = f"self.{_NORMALISED} = {_NORMALISED}"
        lines = f"u = {literal((low + high) / 2)} + {literal((high - low) / 4)} * x if self.{_NORMALISED} else x"
        about = f"x, with ``{_NORMALISED}`` brought from deviation 1 to [{low:g}, {high:g}]"
    low, high = row.reach
    columns = f"{lines}\nu = u.clamp({literal(low)}, {literal(high)})\n{source.columns}"
    constants = source.constants
    for name in re.findall(r"[A-Z][A-Z_]+(?=[, A-Z_]* = )", constants):
        own = f"{row.name.upper()}_{name}" if name in taken else name
        constants, columns = (re.sub(rf"\b{name}\b", own, text) for text in (constants, columns))
        taken.add(own)
    text = _SPACE.format(
        name=_class_name(row),
        about=source.about,
        domain=about,
        signature=signature_text(["self", "in_features: int", *_parameters(row, domain)]),
        setup=indented("\n".join(part for part in (setup, source.setup) if part), 8),
        columns=indented(columns, 8),
    )
    return constants, re.sub(r"(super\(\).__init__\(\)\n)\n+(    def)", r"\1\n\2", text)


def layer_class(base: str | None, normalises: bool) -> str:
    """The class ``MixedKANLinear``."""
    return _class_of(_LINEAR_FORM, base, " + v[o, i] {}(x_i)", normalises)


def conv_class(base: str | None, normalises: bool) -> str:
    """The class ``MixedKANConv2d``."""
    return _class_of(_CONV_FORM, base, " + v[o, i, p] {}(x_ip)", normalises)


def _class_of(form: _Form, base: str | None, base_term: str, normalises: bool) -> str:
    parameters = ["self", "out_features: int", *form.parameters, "choice: tuple[int, ...]", "spaces: list[nn.Module]"]
    parameters += ["deviations: list[tuple[float, ...]]", *(["base_deviation: float"] if base else [])]
    parameters += ["normalize: bool"] if normalises else []
    text = _LAYER.format(
        name=form.name,
        formula=form.formula.format(base_term=base_term.format(base) if base else ""),
        places=form.places,
        product=form.product,
        start=form.start,
        argument=form.argument,
        taken=form.taken,
        returned=form.returned,
        signature=signature_text(parameters),
        setup="\n".join(
            line for line in (form.setup, "        self.normalize = normalize" if normalises else "") if line
        ),
        base_spread="        spread.append(torch.full((len(choice),), base_deviation))\n" if base else "",
        normalise="        nodes = F.layer_norm(x, x.shape[-1:]) if self.normalize else x" if normalises else "",
        nodes="nodes" if normalises else "x",
        base_features=f"        f.append({ACTIVATIONS[base].format('x')})\n" if base else "",
    )
    return re.sub(r"\n\n(        (?:spread|parts))", r"\n\1", text)


def layer_call(layer: MixedLayer, domain: str) -> str:
    """A layer as an expression with a comma.

    Args:
        domain: of the hidden layers, ``layernorm`` where the first one may leave it out.
    """
    first_only = domain == _LAYER_NORM
    spaces = []
    for m, n in zip(layer.used, layer.members, strict=True):
        row = layer.pool[m]
        given = [str(n), *(f"{name}={value}" for name, value in basis_arguments(row).items())]
        given += [f"{_NORMALISED}={layer.normalize}"] if first_only else []
        spaces.append(call_text(_class_name(row), given, WIDTH - 28))
    found = [layer.deviations(m) for m in layer.used]
    deviations = [_deviation(spread.basis) for spread in found]
    sizes = [layer.weight.shape[0], *layer.kernel[:1]]
    lines = [f"{', '.join(map(str, sizes))},", *_wrapped(_tuple(layer.choice.tolist()))]
    lines += ["[", *(indented(space, 4) for space in spaces), "],"]
    lines += ["[", *(line for text in deviations for line in map("    {}".format, _wrapped(text))), "],"]
    lines += [f"base_deviation={found[0].base:.6g},"] if layer.base is not None else []
    lines += [f"normalize={layer.normalize},"] if first_only else []
    return f"{type(layer).__name__}(\n" + indented("\n".join(lines), 4) + "\n),"


def _deviation(values: torch.Tensor) -> str:
    shown = [f"{float(value):.6g}" for value in values]
    return f"({shown[0]},) * {len(shown)}" if len(set(shown)) == 1 else _tuple(shown)


def _tuple(values: Sequence[object]) -> str:
    return f"({', '.join(map(str, values))}{',' if len(values) == 1 else ''})"


def _wrapped(expression: str) -> list[str]:
    """An expression with a comma, in lines."""
    wrap = textwrap.TextWrapper(WIDTH - 24, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
    return wrap.wrap(f"{expression},")


def _parameters(row: Basis, domain: str) -> list[str]:
    types = {"groups": "int"}
    found = [f"{name}: {types.get(name, 'tuple[float, ...]')}" for name in basis_arguments(row)]
    return found + ([f"{_NORMALISED}: bool"] if domain == _LAYER_NORM else [])


def _class_name(row: Basis) -> str:
    return "".join(word.capitalize() for word in row.name.split("_"))

"""Mixed-basis layers as classes of a plain torch module: one per basis in use, and the layer that sorts its nodes."""

import re
import textwrap
from collections.abc import Sequence

import torch

from layersearch.primitives.basis import Basis
from layersearch.primitives.layers.mixed import MixedKANLinear
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

__all__ = ["layer_call", "layer_class", "space_class"]

_SPACE = '''class {name}(nn.Module):
    """Functions f_k(u) of every input, ``[..., I] -> [..., K, I]``.

    f: {about}.
    u: {domain}.
    """

{signature}
        super().__init__()
{setup}

    def forward(self, x: Tensor) -> Tensor:
{columns}
        return f
'''

_LAYER = '''class MixedKANLinear(nn.Module):
    """y_o = sum_i (sum_k w[o, k, i] f_k(x_i){base_term}) + c_o, ``[..., I] -> [..., O]``.

    The f_k are those of the space of node i. Nodes are sorted by space, and all features meet the outputs in one
    product. Weights start normal.

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
        self.weight = nn.Parameter(torch.randn(out_features, len(spread)) * spread)
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.to(torch.get_default_dtype())

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., self.order]
{normalise}
        parts = zip(self.spaces, {nodes}.split(self.members, -1))
        f = [space(part).flatten(-2) for space, part in parts]
{base_features}        return F.linear(torch.cat(f, -1), self.weight, self.bias)
'''

_NORMALISED = "normalised"


def space_class(row: Basis, domain: str, taken: set[str]) -> tuple[str, str]:
    """Constants and class of a basis.

    Args:
        taken: names of constants that the file has already, to which those of this class are added.
    """
    source = basis_source(row)
    plan = LayerPlan(2, 1, row, None, domain, "variance")
    mapped = DomainSource(plan)
    setup, lines, about = mapped.setup, mapped.lines, mapped.about
    if domain == "layernorm":
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
    parameters = ["self", "out_features: int", "choice: tuple[int, ...]", "spaces: list[nn.Module]"]
    parameters += ["deviations: list[tuple[float, ...]]", *(["base_deviation: float"] if base else [])]
    parameters += ["normalize: bool"] if normalises else []
    text = _LAYER.format(
        base_term=f" + v[o, i] {base}(x_i)" if base else "",
        signature=signature_text(parameters),
        setup="        self.normalize = normalize" if normalises else "",
        base_spread="        spread.append(torch.full((len(choice),), base_deviation))\n" if base else "",
        normalise="        nodes = F.layer_norm(x, x.shape[-1:]) if self.normalize else x" if normalises else "",
        nodes="nodes" if normalises else "x",
        base_features=f"        f.append({ACTIVATIONS[base].format('x')})\n" if base else "",
    )
    return re.sub(r"\n\n(        (?:spread|parts))", r"\n\1", text)


def layer_call(layer: MixedKANLinear, domain: str) -> str:
    """A layer as an expression with a comma.

    Args:
        domain: of the hidden layers, ``layernorm`` where the first one may leave it out.
    """
    first_only = domain == "layernorm"
    spaces = []
    for m, n in zip(layer.used, layer.members, strict=True):
        row = layer.pool[m]
        given = [str(n), *(f"{name}={value}" for name, value in basis_arguments(row).items())]
        given += [f"{_NORMALISED}={layer.normalize}"] if first_only else []
        spaces.append(call_text(_class_name(row), given, WIDTH - 28))
    found = [layer.deviations(m) for m in layer.used]
    deviations = [_deviation(spread.basis) for spread in found]
    lines = [f"{layer.weight.shape[0]},", *_wrapped(_tuple(layer.choice.tolist()))]
    lines += ["[", *(indented(space, 4) for space in spaces), "],"]
    lines += ["[", *(line for text in deviations for line in map("    {}".format, _wrapped(text))), "],"]
    lines += [f"base_deviation={found[0].base:.6g},"] if layer.base is not None else []
    lines += [f"normalize={layer.normalize},"] if first_only else []
    return "MixedKANLinear(\n" + indented("\n".join(lines), 4) + "\n),"


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
    return found + ([f"{_NORMALISED}: bool"] if domain == "layernorm" else [])


def _class_name(row: Basis) -> str:
    return "".join(word.capitalize() for word in row.name.split("_"))

"""KAN layers as classes of a plain torch module: one text for linear layers, one for convolutions, and their calls."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from layersearch.primitives.activations import activation
from layersearch.primitives.layers.functions import BasisFunctions
from layersearch.primitives.layers.init import scales
from layersearch.spaces.kan.basis_source import basis_arguments, basis_source, literal
from layersearch.spaces.kan.network import LayerPlan

__all__ = [
    "ACTIVATIONS",
    "LOAD",
    "WIDTH",
    "DomainSource",
    "LayerSource",
    "call_text",
    "indented",
    "module_text",
    "signature_text",
]

WIDTH = 120
"""Longest line of an exported file."""

LOAD = '''
    @classmethod
    def load(cls, path: str) -> "Model":
        """The network with the weights of a .safetensors file, in eval mode."""
        dtypes = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}
        with open(path, "rb") as file:
            content = bytearray(file.read())
        begin = 8 + int.from_bytes(content[:8], "little")
        state = {}
        for name, entry in json.loads(content[8:begin]).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                values = torch.frombuffer(bytearray(content[begin + start : begin + end]), dtype=dtypes[entry["dtype"]])
                state[name] = values.reshape(entry["shape"])
        model = cls()
        model.load_state_dict(state)
        return model.eval()
'''
"""The method of ``Model`` that reads weights: the end of its class."""

_LAYER = '''class KANLinear(nn.Module):
    """y_o = sum_i (sum_k w[o, k, i] f_k(u_i){base_term}) + c_o, ``[..., I] -> [..., O]``.

    f: {about}.
    u: {domain}.
    Weights start normal with the given deviations, ``deviation[k]`` for function k.
    """

{signature}
        super().__init__()
{setup}
        spread = torch.tensor(deviation).unsqueeze(-1)
        self.weight = nn.Parameter(torch.randn(out_features, len(deviation), in_features) * spread)
{base_weight}        self.bias = nn.Parameter(torch.zeros(out_features))
        self.to(torch.get_default_dtype())

    def forward(self, input: Tensor) -> Tensor:
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
{columns}
        f = f.flatten(-2).to(input.dtype)
        {returns}
'''

_CONV = '''class KANConv2d(nn.Module):
    """y_o = sum_ip (sum_k w[o, k, i, p] f_k(u_ip){base_term}) + c_o, ``[N, I, H, W] -> [N, O, H, W]``.

    p: the places of the kernel; nothing is summed beyond the image.
    f: {about}.
    u: {domain}.
    Weights start normal with the given deviations, ``deviation[k]`` for function k.
    """

{signature}
        super().__init__()
{setup}
        self.padding = kernel // 2
        spread = torch.tensor(deviation).view(-1, 1, 1, 1)
        shape = (out_features, len(deviation), in_features, kernel, kernel)
        self.weight = nn.Parameter(torch.randn(shape) * spread)
{base_weight}        self.bias = nn.Parameter(torch.zeros(out_features))
        self.to(torch.get_default_dtype())

    def forward(self, image: Tensor) -> Tensor:
        x = image.movedim(1, -1)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
{columns}
        f = f.flatten(-2).movedim(-1, 1).to(image.dtype)
        y = F.conv2d(f, self.weight.flatten(1, 2), self.bias, padding=self.padding)
        {returns}
'''


@dataclass(frozen=True)
class _Form:
    """What differs between the two texts."""

    template: str
    base_term: str
    kernel: tuple[str, ...]
    base_shape: str
    applied: str
    base_applied: str
    argument: str


_LINEAR_FORM = _Form(
    _LAYER,
    " + v[o, i] {}(x_i)",
    (),
    "out_features, in_features",
    "F.linear(f, self.weight.flatten(1), self.bias)",
    "F.linear({}, self.base_weight)",
    "input",
)
_CONV_FORM = _Form(
    _CONV,
    " + v[o, i, p] {}(x_ip)",
    ("kernel: int",),
    "out_features, in_features, kernel, kernel",
    "y",
    "F.conv2d({}, self.base_weight, padding=self.padding)",
    "image",
)


class LayerSource:
    """The layers of a model, all of one basis, base branch and domain map.

    Args:
        plan: of any layer but one with the domain left out.
    """

    def __init__(self, plan: LayerPlan) -> None:
        self._source = basis_source(plan.basis)
        self._domain = DomainSource(plan)
        self._plan = plan

    @property
    def constants(self) -> str:
        """Statements of the module, before the classes, with the blank lines that follow."""
        return f"{self._source.constants}\n\n\n" if self._source.constants else "\n"

    def linear(self) -> str:
        """The class ``KANLinear``."""
        return self._class(_LINEAR_FORM)

    def conv(self) -> str:
        """The class ``KANConv2d``."""
        return self._class(_CONV_FORM)

    def _class(self, form: _Form) -> str:
        source, domain, plan = self._source, self._domain, self._plan
        arguments = [*source.arguments, *(["normalize"] if domain.optional else [])]
        types = {"groups": "int", "normalize": "bool"}
        signature = ["self", "in_features: int", "out_features: int", *form.kernel, "deviation: tuple[float, ...]"]
        signature += [f"{name}: {types.get(name, 'tuple[float, ...]')}" for name in arguments]
        signature += ["base_deviation: float"] if plan.base else []
        setup = "\n".join(part for part in (domain.setup, source.setup) if part)
        low, high = plan.basis.reach
        columns = f"{domain.lines}\nu = u.clamp({literal(low)}, {literal(high)})\n{source.columns}"
        start = f"torch.randn({form.base_shape}) * base_deviation"
        base = form.base_applied.format(ACTIVATIONS[plan.base].format(form.argument)) if plan.base else ""
        text = form.template.format(
            base_term=form.base_term.format(plan.base) if plan.base else "",
            about=source.about,
            domain=domain.about,
            signature=signature_text(signature),
            setup=indented(setup, 8),
            base_weight=f"        self.base_weight = nn.Parameter({start})\n" if plan.base else "",
            columns=indented(columns, 8),
            returns=f"return {form.applied} + {base}" if base else f"return {form.applied}",
        )
        return text.replace("        super().__init__()\n\n", "        super().__init__()\n")

    def call(self, plan: LayerPlan, kernel: int | None = None, width: int = WIDTH - 12) -> str:
        """A layer as an expression with a comma, in lines of at most ``width``.

        Args:
            plan: of the layer.
            kernel: side of that of a convolution.
        """
        functions = BasisFunctions(plan.basis, plan.inputs, plan.domain, dtype=torch.float64)
        base = None if plan.base is None else activation(plan.base)[1]
        area = 1 if kernel is None else kernel**2
        spread = scales(plan.init, functions, area * plan.inputs, area * plan.outputs, base)
        deviation = [f"{float(value):.6g}" for value in spread.basis]
        alike = len(set(deviation)) == 1
        shown = f"({deviation[0]},) * {len(deviation)}" if alike else f"({', '.join(deviation)})"
        found = [str(plan.inputs), str(plan.outputs), *([] if kernel is None else [str(kernel)])]
        found += [f"deviation={shown}"]
        found += [f"{name}={value}" for name, value in basis_arguments(plan.basis).items()]
        found += [f"normalize={plan.domain != 'none'}"] if self._domain.optional else []
        found += [f"base_deviation={spread.base:.6g}"] if plan.base is not None else []
        return call_text("KANLinear" if kernel is None else "KANConv2d", found, width)


def module_text(code: str, names: list[str]) -> str:
    """A module of ``code`` that defines ``names``, with the imports it needs."""
    imports = [f"import {name}" for name in ("json", "math") if f"{name}." in code]
    functional = "from torch.nn import functional as F\n" if "F." in code else ""
    head = "\n".join(imports) + "\n\nimport torch\nfrom torch import Tensor, nn\n" + functional
    listed = ", ".join(f'"{name}"' for name in names)
    return f"{head}\n__all__ = [{listed}]\n\n{code}"


def signature_text(parts: list[str]) -> str:
    """The head of ``__init__`` with these parameters."""
    line = f"    def __init__({', '.join(parts)}) -> None:"
    if len(line) <= WIDTH:
        return line
    return "    def __init__(\n        " + ",\n        ".join(parts) + ",\n    ) -> None:"


def call_text(name: str, arguments: list[str], width: int) -> str:
    """A call as an expression with a comma, in lines of at most ``width``."""
    line = f"{name}({', '.join(arguments)}),"
    if len(line) <= width:
        return line
    wrap = textwrap.TextWrapper(width - 5, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    lines = "\n".join(wrap.fill(f"{argument},") for argument in arguments)
    return f"{name}(\n{textwrap.indent(lines, '    ')}\n),"


ACTIVATIONS: Mapping[str | None, str] = {
    "gelu": "F.gelu({})",
    "identity": "{}",
    "silu": "F.silu({})",
    "tanh": "torch.tanh({})",
}
"""Base branches as expressions of their argument."""


class DomainSource:
    """How ``u`` is made of ``x`` in every layer of a network; ``optional`` where the first one is left out."""

    def __init__(self, plan: LayerPlan) -> None:
        kind = plan.domain
        low, high = plan.basis.interval
        m, h = literal((low + high) / 2), literal((high - low) / 2)
        start, width = literal(low), literal(high - low)
        self.optional = kind == "layernorm"
        self.setup = ""
        match kind:
            case "tanh":
                self.about = f"x brought to [{low:g}, {high:g}] by tanh"
                plain = (low + high, high - low) == (0, 2)
                self.lines = "u = torch.tanh(x)" if plain else f"u = {m} + {h} * torch.tanh((x - {m}) / {h})"
            case "layernorm":
                self.setup = "self.normalize = normalize"
                self.about = f"x, with ``normalize`` layer-normalised, two deviations at [{low:g}, {high:g}]"
                normed = f"{m} + {literal((high - low) / 4)} * F.layer_norm(x, x.shape[-1:])"
                self.lines = f"u = {normed} if self.normalize else x"
            case "minmax":
                self.setup = (
                    'self.register_buffer("map_low", torch.zeros(in_features))\n'
                    'self.register_buffer("map_high", torch.ones(in_features))\n'
                    'self.register_buffer("map_seen", torch.zeros((), dtype=torch.bool))'
                )
                self.about = f"x brought to [{low:g}, {high:g}] by the range of each input, tracked in training"
                self.lines = (
                    "if self.training:\n"
                    "    ends = x.detach().reshape(-1, x.shape[-1]).to(self.map_low.dtype).aminmax(dim=0)\n"
                    "    part = torch.where(self.map_seen, 0.1, 1.0).to(self.map_low.dtype)\n"
                    "    self.map_low.lerp_(ends.min, part)\n"
                    "    self.map_high.lerp_(ends.max, part)\n"
                    "    self.map_seen.fill_(True)\n"
                    "span = (self.map_high - self.map_low).clamp_min(1e-5)\n"
                    f"u = {start} + {width} * (x - self.map_low) / span\n"
                    f"u = u.clamp({start}, {literal(high)})"
                )
            case "clamp":
                self.about = f"x clamped to [{low:g}, {high:g}]"
                self.lines = f"u = x.clamp({start}, {literal(high)})"
            case "softplus":
                self.about = f"{low:g} + softplus(x)"
                self.lines = f"u = {start} + F.softplus(x)"
            case _:
                self.about = "x"
                self.lines = "u = x"


def indented(text: str, by: int) -> str:
    """Every line that is not empty, further to the right."""
    return "\n".join(" " * by + line if line else "" for line in text.split("\n"))

"""A network of the kan space as one plain torch module: the formula of its basis, one layer class, and the network."""

import itertools
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.errors import RunError
from layersearch.primitives.activations import activation
from layersearch.primitives.layers.functions import BasisFunctions
from layersearch.primitives.layers.init import scales
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Job, JsonObject, PythonFile
from layersearch.spaces.kan.basis_source import basis_arguments, basis_source, literal
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.evaluate import KANEvaluator
from layersearch.spaces.kan.formula import formula
from layersearch.spaces.kan.genome import KANGenome, from_json
from layersearch.spaces.kan.network import LayerPlan, build, plans
from layersearch.spaces.kan.settings import parse
from layersearch.spaces.kan.space import KANSpace
from layersearch.spaces.tasks.checkpoint import unpack
from layersearch.spaces.tasks.regression.checkpoint import MODEL

__all__ = ["exported_name", "python_file", "trained"]

_OUTPUTS = 1
_ROWS = 64
_WIDTH = 120

_MODEL = '''class Model(nn.Module):
    """A network of widths {shape}: ``[..., {inputs}] -> [..., {outputs}]``.

    Inputs and outputs are in the units of the data once ``shift``, ``scale`` (per input) and ``mean``, ``deviation``
    (of the output) are set, as ``load`` does; until then they change nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros({inputs}))
        self.register_buffer("scale", torch.ones({inputs}))
        self.register_buffer("mean", torch.zeros({outputs}))
        self.register_buffer("deviation", torch.ones({outputs}))
        self.layers = nn.Sequential(
{layers}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers((x - self.shift) / self.scale) * self.deviation + self.mean

    @classmethod
    def load(cls, path: str) -> "Model":
        """The network with the weights of a .safetensors file, in eval mode."""
        dtypes = {{"F64": torch.float64, "F32": torch.float32, "BOOL": torch.bool}}
        with open(path, "rb") as file:
            content = bytearray(file.read())
        begin = 8 + int.from_bytes(content[:8], "little")
        state = {{}}
        for name, entry in json.loads(content[8:begin]).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                values = torch.frombuffer(bytearray(content[begin + start : begin + end]), dtype=dtypes[entry["dtype"]])
                state[name] = values.reshape(entry["shape"])
        model = cls()
        model.load_state_dict(state)
        return model.eval()
'''

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

    def forward(self, x: Tensor) -> Tensor:
{columns}
        {returns}
'''


def python_file(genome: JsonObject, settings: JsonObject | None, num_features: int) -> PythonFile:
    """The module of a network, for the inputs of a run, or for ``num_features`` where there is none.

    Args:
        genome: of the space.
        settings: of the run it was found in.
        num_features: inputs of a network without a run.
    Raises: GenomeError.
    """
    parsed = from_json(genome)
    inputs = num_features if settings is None else parse(settings).in_features
    body = _mlp(parsed, inputs) if parsed.basis == MLP else _kan(parsed, inputs)
    shape = "-".join(map(str, (inputs, *parsed.hidden, _OUTPUTS)))
    kind = "a network of linear layers" if parsed.basis == MLP else "a Kolmogorov-Arnold network"
    text = formula(parsed)
    return PythonFile(
        class_name="Model",
        title=f"Model: {kind} of widths {shape}. Plain PyTorch, needs nothing else.",
        formula=text,
        body=body,
        check=lambda namespace: _difference(parsed, inputs, namespace),
    )


def trained(genome: JsonObject, settings: JsonObject, run_seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """State dict of ``Model`` after the first training of the re-rank, repeated here, and what it measured.

    On the hardware of the run it is that very training; elsewhere numbers may differ in the last digits. The error is
    that on the hold-out part, in deviations of the target.

    Raises: DataError if the data is missing; RunError if the network could not be trained.
    """
    parsed = parse(settings)
    space = KANSpace(parsed)
    stage = space.rerank_stages[0].id
    evaluator = KANEvaluator(parsed, space.load_data(), "cpu")
    job = Job(candidate=0, stage=stage, genome=genome, seed=Seeds(run_seed).derive("rerank", stage))
    outcome = evaluator.run(job)
    if outcome.checkpoint is None:
        raise RunError(f"the network must be trained to have weights, and could not be ({outcome.reason})")
    task = evaluator.task
    tensors, _ = unpack(outcome.checkpoint)
    state = {exported_name(name.removeprefix(MODEL)): t for name, t in tensors.items() if name.startswith(MODEL)}
    if task.dtype != torch.float32:  # as the exported class is made
        state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    units = {
        "shift": torch.tensor(task.input_shift),
        "scale": torch.tensor(task.input_scale),
        "mean": torch.tensor([task.target_mean]),
        "deviation": torch.tensor([task.target_std]),
    }
    return state | {name: tensor.float() for name, tensor in units.items()}, dict(outcome.fitness)


def exported_name(name: str) -> str:
    """Name in the state dict of ``Model`` of a tensor of ours."""
    name = re.sub(r"^(\d+)\.functions\.domain\.", r"\1.map_", name)
    return "layers." + re.sub(r"^(\d+)\.functions\.", r"\1.", name)


def _kan(genome: KANGenome, inputs: int) -> str:
    layers = plans(genome, inputs, _OUTPUTS)
    source = basis_source(layers[-1].basis)
    domain = _Domain(layers[-1])
    arguments = [*source.arguments, *(["normalize"] if domain.optional else [])]
    types = {"groups": "int", "normalize": "bool"}
    base = layers[0].base
    signature = ["self", "in_features: int", "out_features: int", "deviation: tuple[float, ...]"]
    signature += [f"{name}: {types.get(name, 'tuple[float, ...]')}" for name in arguments]
    setup = "\n".join(part for part in (domain.setup, source.setup) if part)
    low, high = layers[-1].basis.reach
    columns = f"{domain.lines}\nu = u.clamp({literal(low)}, {literal(high)})\n{source.columns}"
    linear = "F.linear(f.flatten(-2), self.weight.flatten(1), self.bias)"
    layer = _LAYER.format(
        base_term=f" + v[o, i] {base}(x_i)" if base else "",
        about=source.about,
        domain=domain.about,
        signature=_signature([*signature, *(["base_deviation: float"] if base else [])]),
        setup=_indented(setup, 8),
        base_weight=(
            "        self.base_weight = nn.Parameter(torch.randn(out_features, in_features) * base_deviation)\n"
            if base
            else ""
        ),
        columns=_indented(columns, 8),
        returns=f"return {linear} + F.linear({_ACTIVATIONS[base]}, self.base_weight)" if base else f"return {linear}",
    ).replace("        super().__init__()\n\n", "        super().__init__()\n")
    made = [_call(_arguments(plan, domain)) for plan in layers]
    shape = "-".join(map(str, (inputs, *genome.hidden, _OUTPUTS)))
    model = _MODEL.format(shape=shape, inputs=inputs, outputs=_OUTPUTS, layers=_indented("\n".join(made), 12))
    constants = f"{source.constants}\n\n\n" if source.constants else "\n"
    return _module(f"{constants}{layer}\n\n{model}", ["KANLinear", "Model"])


def _mlp(genome: KANGenome, inputs: int) -> str:
    widths = (inputs, *genome.hidden, _OUTPUTS)
    made = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        made += [f"{_MODULES[genome.base]}()," if i else "", f"nn.Linear({a}, {b}),"]
    shape = "-".join(map(str, widths))
    lines = _indented("\n".join(line for line in made if line), 12)
    return _module("\n" + _MODEL.format(shape=shape, inputs=inputs, outputs=_OUTPUTS, layers=lines), ["Model"])


def _module(code: str, names: list[str]) -> str:
    imports = [f"import {name}" for name in ("json", "math") if f"{name}." in code]
    functional = "from torch.nn import functional as F\n" if "F." in code else ""
    head = "\n".join(imports) + "\n\nimport torch\nfrom torch import Tensor, nn\n" + functional
    listed = ", ".join(f'"{name}"' for name in names)
    return f"{head}\n__all__ = [{listed}]\n\n{code}"


def _signature(parts: list[str]) -> str:
    line = f"    def __init__({', '.join(parts)}) -> None:"
    if len(line) <= _WIDTH:
        return line
    return "    def __init__(\n        " + ",\n        ".join(parts) + ",\n    ) -> None:"


def _call(arguments: list[str]) -> str:
    line = f"KANLinear({', '.join(arguments)}),"
    if len(line) <= _WIDTH - 12:
        return line
    wrap = textwrap.TextWrapper(_WIDTH - 17, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    lines = "\n".join(wrap.fill(f"{argument},") for argument in arguments)
    return f"KANLinear(\n{textwrap.indent(lines, '    ')}\n),"


def _arguments(plan: LayerPlan, domain: "_Domain") -> list[str]:
    functions = BasisFunctions(plan.basis, plan.inputs, plan.domain, dtype=torch.float64)
    base = None if plan.base is None else activation(plan.base)[1]
    spread = scales(plan.init, functions, plan.inputs, plan.outputs, base)
    deviation = [f"{float(value):.6g}" for value in spread.basis]
    alike = len(set(deviation)) == 1
    shown = f"({deviation[0]},) * {len(deviation)}" if alike else f"({', '.join(deviation)})"
    found = [str(plan.inputs), str(plan.outputs), f"deviation={shown}"]
    found += [f"{name}={value}" for name, value in basis_arguments(plan.basis).items()]
    found += [f"normalize={plan.domain != 'none'}"] if domain.optional else []
    return found + ([f"base_deviation={spread.base:.6g}"] if plan.base is not None else [])


_ACTIVATIONS: Mapping[str | None, str] = {
    "gelu": "F.gelu(x)",
    "identity": "x",
    "silu": "F.silu(x)",
    "tanh": "torch.tanh(x)",
}
_MODULES = {"gelu": "nn.GELU", "identity": "nn.Identity", "silu": "nn.SiLU", "tanh": "nn.Tanh"}


class _Domain:
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
                    "    ends = x.detach().reshape(-1, x.shape[-1]).aminmax(dim=0)\n"
                    "    part = torch.where(self.map_seen, 0.1, 1.0).to(x.dtype)\n"
                    "    self.map_low.lerp_(ends.min, part)\n"
                    "    self.map_high.lerp_(ends.max, part)\n"
                    "    self.map_seen.fill_(True)\n"
                    f"u = {start} + {width} * (x - self.map_low) / (self.map_high - self.map_low).clamp_min(1e-5)\n"
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


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line else "" for line in text.split("\n"))


def _difference(genome: KANGenome, inputs: int, namespace: Mapping[str, Any]) -> float:
    """Largest difference of the file's ``Model`` from our network in float64, in eval mode and after a training step.

    Relative to 1 + size of the value; with random weights, beyond the intervals of the basis, too.
    """
    generator = torch.Generator().manual_seed(0)
    ours = build(genome, inputs, _OUTPUTS, generator=generator, dtype=torch.float64)
    theirs: nn.Module = namespace["Model"]().double()
    fresh = {name: tensor for name, tensor in theirs.state_dict().items() if name.startswith("layers.")}
    state = {exported_name(name): tensor for name, tensor in ours.state_dict().items()}
    if sorted(fresh) != sorted(state) or any(fresh[name].shape != state[name].shape for name in state):
        return float("inf")
    own = {name for name in state if not name.endswith(("weight", "bias"))}
    if not all(torch.allclose(fresh[name].float(), state[name].float(), rtol=1e-6) for name in own):
        return float("inf")  # the tensors of the basis do not start alike
    worst = 0.0
    theirs.load_state_dict(theirs.state_dict() | state)
    x = torch.randn(_ROWS, inputs, generator=generator, dtype=torch.float64) * 2
    for training in (True, False):
        ours.train(training), theirs.train(training)
        a, b = _run(ours, x), _run(theirs, x)
        worst = max(worst, *(float(((p - q).abs() / (1 + p.abs())).max()) for p, q in zip(a, b, strict=True)))
    return worst


def _run(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and gradient by the inputs."""
    x = x.clone().requires_grad_(True)
    y: Tensor = module(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    return y.detach(), gradient

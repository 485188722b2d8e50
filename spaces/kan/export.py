"""A network of the kan space as one plain torch module: the formula of its basis, one layer class, and the network."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from layersearch.spaces.contracts import JsonObject, PythonFile
from layersearch.spaces.funnel import again
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.data import has_images
from layersearch.spaces.kan.evaluate import KANEvaluator
from layersearch.spaces.kan.export_check import exported_name, largest_difference
from layersearch.spaces.kan.formula import formula
from layersearch.spaces.kan.genome import KANGenome, from_json
from layersearch.spaces.kan.images import export as images
from layersearch.spaces.kan.images.genome import is_image_genome
from layersearch.spaces.kan.images.network import MODULES
from layersearch.spaces.kan.layer_source import LOAD, LayerSource, indented, module_text
from layersearch.spaces.kan.network import build, plans
from layersearch.spaces.kan.settings import parse
from layersearch.spaces.kan.space import KANSpace
from layersearch.spaces.tasks.checkpoint import MODEL, unpack
from layersearch.spaces.tasks.regression.training import RegressionTask

__all__ = ["MODEL_CLASS", "exported_state", "python_file", "trained"]

_OUTPUTS = 1
_ROWS = 64

MODEL_CLASS = '''class Model(nn.Module):
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
        if not torch.jit.is_tracing() and x.shape[-1] != {inputs}:
            raise ValueError(f"x must be [..., {inputs}], got {{list(x.shape)}}")
        return self.layers((x - self.shift) / self.scale) * self.deviation + self.mean
'''


def python_file(genome: JsonObject, settings: JsonObject | None, num_features: int) -> PythonFile:
    """The module of a network, for the inputs of a run, or for ``num_features`` where there is none.

    Args:
        genome: of the space.
        settings: of the run it was found in.
        num_features: inputs of a network without a run, or channels of its images.
    Raises: GenomeError.
    """
    if is_image_genome(genome):
        return images.python_file(genome, settings, num_features)
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

    On the hardware of the run it is that very training; elsewhere numbers may differ in the last digits. The error (in
    deviations of the target) or accuracy is that on the hold-out part.

    Raises: DataError if the data is missing; RunError if the network could not be trained.
    """
    if has_images(settings):
        return images.trained(genome, settings, run_seed)
    parsed = parse(settings)
    evaluator = KANEvaluator(parsed, KANSpace(parsed).load_data(), "cpu")
    outcome, checkpoint = again(evaluator, genome, run_seed)
    return exported_state(checkpoint, evaluator.task), dict(outcome.fitness)


def exported_state(checkpoint: bytes, task: RegressionTask) -> dict[str, Tensor]:
    """State dict of ``Model`` with the weights of a checkpoint, and the units of the task."""
    tensors, _ = unpack(checkpoint)
    state = {exported_name(name.removeprefix(MODEL)): t for name, t in tensors.items() if name.startswith(MODEL)}
    if task.dtype != torch.float32:  # as the exported class is made
        state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    units = {
        "shift": torch.tensor(task.input_shift),
        "scale": torch.tensor(task.input_scale),
        "mean": torch.tensor([task.target_mean]),
        "deviation": torch.tensor([task.target_std]),
    }
    return state | {name: tensor.float() for name, tensor in units.items()}


def _kan(genome: KANGenome, inputs: int) -> str:
    layers = plans(genome, inputs, _OUTPUTS)
    source = LayerSource(layers[-1])
    made = "\n".join(source.call(plan) for plan in layers)
    shape = "-".join(map(str, (inputs, *genome.hidden, _OUTPUTS)))
    model = MODEL_CLASS.format(shape=shape, inputs=inputs, outputs=_OUTPUTS, layers=indented(made, 12)) + LOAD
    return module_text(f"{source.constants}{source.linear()}\n\n{model}", ["KANLinear", "Model"])


def _mlp(genome: KANGenome, inputs: int) -> str:
    widths = (inputs, *genome.hidden, _OUTPUTS)
    made = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        made += [f"nn.{MODULES[genome.base].__name__}()," if i else "", f"nn.Linear({a}, {b}),"]
    shape = "-".join(map(str, widths))
    lines = indented("\n".join(line for line in made if line), 12)
    return module_text(
        "\n" + MODEL_CLASS.format(shape=shape, inputs=inputs, outputs=_OUTPUTS, layers=lines) + LOAD, ["Model"]
    )


def _difference(genome: KANGenome, inputs: int, namespace: Mapping[str, Any]) -> float:
    """Of the file's ``Model`` from our network, beyond the intervals of the basis, too."""
    generator = torch.Generator().manual_seed(0)
    ours = build(genome, inputs, _OUTPUTS, generator=generator, dtype=torch.float64)
    x = torch.randn(_ROWS, inputs, generator=generator, dtype=torch.float64) * 2
    return largest_difference(ours, namespace["Model"]().double(), x)

"""A pruned network of the skan space as one plain torch module: its bases, one layer class, and the network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.spaces.contracts import JsonObject, PythonFile
from layersearch.spaces.funnel import again
from layersearch.spaces.kan import export as kan
from layersearch.spaces.kan.choices import NONE
from layersearch.spaces.kan.export_check import largest_difference
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.layer_source import LOAD, indented, module_text
from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.evaluate import SKANEvaluator
from layersearch.spaces.skan.formula import formula, selected
from layersearch.spaces.skan.genome import SKANGenome, from_json
from layersearch.spaces.skan.layer_source import layer_call, layer_class, space_class
from layersearch.spaces.skan.network import choices_of, pruned_network
from layersearch.spaces.skan.settings import parse
from layersearch.spaces.skan.space import SKANSpace

__all__ = ["python_file", "trained"]

_OUTPUTS = 1
_ROWS = 64


def python_file(
    genome: JsonObject, settings: JsonObject | None, num_features: int, selection: JsonObject | None
) -> PythonFile:
    """The module of a network after its pruning.

    Args:
        genome: of the space.
        settings: of the run it was found in.
        num_features: inputs of a network of the kan space that is of no run.
        selection: what the nodes chose.
    Raises: GenomeError; BadInputError if nothing was selected yet.
    """
    parsed = from_json(genome)
    inputs = num_features if settings is None else parse(settings).in_features
    if isinstance(parsed, KANGenome):
        return kan.python_file(genome, None, inputs)
    if selection is None:
        raise BadInputError(
            "an export of skan must know what the nodes chose in training, and no training of this genome is recorded; "
            "name an evaluated candidate of a run"
        )
    layers: list[list[str]] = selection["layers"]
    generator = torch.Generator().manual_seed(0)
    network = pruned_network(
        parsed, inputs, _OUTPUTS, choices_of(parsed, layers), generator=generator, dtype=torch.float64
    )
    shape = "-".join(map(str, (inputs, *parsed.hidden, _OUTPUTS)))

    def check(namespace: Mapping[str, Any]) -> float:
        x = torch.randn(_ROWS, inputs, generator=generator, dtype=torch.float64) * 2
        return largest_difference(network, namespace["Model"]().double(), x)

    return PythonFile(
        class_name="Model",
        title=f"Model: a Kolmogorov-Arnold network of widths {shape} whose nodes have different bases. Plain PyTorch.",
        formula=f"{formula(parsed)}; selected: {selected(layers)}",
        body=_body(parsed, network, shape, inputs),
        check=check,
    )


def trained(
    genome: JsonObject, settings: JsonObject, run_seed: int
) -> tuple[dict[str, Tensor], dict[str, float], JsonObject | None]:
    """State dict of ``Model`` after the first training of the re-rank, repeated here, what it measured and selected.

    On the hardware of the run it is that very training; elsewhere numbers, and with them choices, may differ.

    Raises: DataError if the data is missing; RunError if the network could not be trained.
    """
    parsed = parse(settings)
    evaluator = SKANEvaluator(parsed, SKANSpace(parsed).load_data(), "cpu")
    outcome, checkpoint = again(evaluator, genome, run_seed)
    return kan.exported_state(checkpoint, evaluator.task), dict(outcome.fitness), outcome.selection


def _body(genome: SKANGenome, network: Network, shape: str, inputs: int) -> str:
    layers = [layer for layer in network if isinstance(layer, MixedKANLinear)]
    rows = {layer.pool[m].name: layer.pool[m] for layer in layers for m in layer.used}
    normalises = genome.domain == "layernorm"
    base = None if genome.base == NONE else genome.base
    last = layers[-1]
    constants: dict[str, None] = {}
    classes, taken = [], set[str]()
    for name in sorted(rows):
        domain = genome.domain if normalises else last.domain or rows[name].domain
        constant, text = space_class(rows[name], domain, taken)
        if constant:
            constants[constant] = None
        classes.append(text)
    made = "\n".join(layer_call(layer, genome.domain) for layer in layers)
    model = kan.MODEL_CLASS.format(shape=shape, inputs=inputs, outputs=_OUTPUTS, layers=indented(made, 12)) + LOAD
    head = "\n".join(constants) + "\n\n\n" if constants else "\n"
    parts = "\n\n".join([*classes, layer_class(base, normalises), model])
    return module_text(head + parts, ["MixedKANLinear", "Model"])

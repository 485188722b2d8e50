"""A pruned network of the skan space as one plain torch module: its bases, one layer class, and the network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.spaces.contracts import JsonObject, PythonFile
from layersearch.spaces.funnel import again
from layersearch.spaces.kan import export as kan
from layersearch.spaces.kan.data import has_images
from layersearch.spaces.kan.export_check import largest_difference
from layersearch.spaces.kan.genome import KANGenome
from layersearch.spaces.kan.images.genome import is_image_genome
from layersearch.spaces.kan.layer_source import LOAD, indented, module_text
from layersearch.spaces.kan.network import Network
from layersearch.spaces.skan.evaluate import SKANEvaluator
from layersearch.spaces.skan.formula import formula, selected
from layersearch.spaces.skan.genome import SKANGenome, from_json
from layersearch.spaces.skan.images import export as images
from layersearch.spaces.skan.layer_source import layer_call, layer_class, space_classes
from layersearch.spaces.skan.network import pruned_network
from layersearch.spaces.skan.selection import choices_of, layers_in
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
        num_features: inputs, or channels, of a network that is of no run.
        selection: what the nodes chose.
    Raises: GenomeError; BadInputError if nothing was selected yet.
    """
    if is_image_genome(genome):
        return images.python_file(genome, settings, num_features, selection)
    parsed = from_json(genome)
    inputs = num_features if settings is None else parse(settings).in_features
    if isinstance(parsed, KANGenome):
        return kan.python_file(genome, None, inputs)
    layers = layers_in(selection)
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
    if has_images(settings):
        return images.trained(genome, settings, run_seed)
    parsed = parse(settings)
    evaluator = SKANEvaluator(parsed, SKANSpace(parsed).load_data(), "cpu")
    outcome, checkpoint = again(evaluator, genome, run_seed)
    return kan.exported_state(checkpoint, evaluator.task), dict(outcome.fitness), outcome.selection


def _body(genome: SKANGenome, network: Network, shape: str, inputs: int) -> str:
    layers = [layer for layer in network if isinstance(layer, MixedKANLinear)]
    head, classes = space_classes(layers, genome.domain)
    made = "\n".join(layer_call(layer, genome.domain) for layer in layers)
    model = kan.MODEL_CLASS.format(shape=shape, inputs=inputs, outputs=_OUTPUTS, layers=indented(made, 12)) + LOAD
    own = layer_class(layers[0].base_name, genome.domain == "layernorm")
    return module_text(head + "\n\n".join([*classes.values(), own, model]), ["MixedKANLinear", "Model"])

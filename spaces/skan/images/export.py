"""A pruned S-ConvKAN as one plain torch module: its bases, its layer classes, and the network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.primitives.layers.mixed import MixedKANConv2d, MixedKANLinear
from layersearch.spaces.contracts import JsonObject, PythonFile
from layersearch.spaces.funnel import again
from layersearch.spaces.kan.images import export as kan
from layersearch.spaces.kan.images.export import Images
from layersearch.spaces.skan.formula import selected
from layersearch.spaces.skan.images.evaluate import ImageSKANEvaluator
from layersearch.spaces.skan.images.formula import formula
from layersearch.spaces.skan.images.genome import SelectingGenome, from_json, selects
from layersearch.spaces.skan.images.network import pruned_network
from layersearch.spaces.skan.images.settings import parse
from layersearch.spaces.skan.images.space import ImageSKANSpace
from layersearch.spaces.skan.layer_source import conv_class, layer_call, layer_class, space_classes
from layersearch.spaces.skan.selection import choices_of, layers_in
from layersearch.spaces.tasks.images.models import ImageClassifier

__all__ = ["python_file", "trained"]


def python_file(
    genome: JsonObject, settings: JsonObject | None, num_features: int, selection: JsonObject | None
) -> PythonFile:
    """The module of a classifier after its pruning; see ``skan.export.python_file``.

    Raises: GenomeError; BadInputError if nothing was selected yet.
    """
    parsed, run = from_json(genome), None if settings is None else parse(settings)
    if not selects(parsed):
        return kan.file_of(parsed, run, num_features)
    layers = layers_in(selection)
    images = Images.of(parsed, run, num_features)
    generator = torch.Generator().manual_seed(0)
    model = pruned_network(
        parsed, images.channels, images.classes, choices_of(parsed.layer, layers), generator=generator,
        dtype=torch.float64,
    )  # fmt: skip

    def check(namespace: Mapping[str, Any]) -> float:
        return kan.difference_on_images(model, images, generator, namespace)

    return PythonFile(
        class_name="Model",
        title="Model: a convolutional network of KAN layers whose channels have different bases. Plain PyTorch.",
        formula=f"{formula(parsed)}; selected: {selected(layers)}",
        body=_body(parsed, model, images),
        check=check,
    )


def trained(
    genome: JsonObject, settings: JsonObject, run_seed: int
) -> tuple[dict[str, Tensor], dict[str, float], JsonObject | None]:
    """See ``skan.export.trained``; the accuracy is that on the hold-out part."""
    parsed = parse(settings)
    evaluator = ImageSKANEvaluator(parsed, ImageSKANSpace(parsed).load_data(), "cpu")
    outcome, checkpoint = again(evaluator, genome, run_seed)
    return kan.exported_state(checkpoint, evaluator.task), dict(outcome.fitness), outcome.selection


def _body(genome: SelectingGenome, model: ImageClassifier, images: Images) -> str:
    layers = [module for module in model if isinstance(module, MixedKANConv2d | MixedKANLinear)]
    domain = genome.layer.domain
    head, classes = space_classes(layers, domain)
    for kind, written in ((MixedKANConv2d, conv_class), (MixedKANLinear, layer_class)):
        if any(isinstance(layer, kind) for layer in layers):
            classes[kind.__name__] = written(layers[0].base_name, domain == "layernorm")

    def call(module: nn.Module, width: int) -> str | None:
        if not isinstance(module, MixedKANConv2d | MixedKANLinear):
            return None
        return layer_call(module, domain).removesuffix(",")

    return kan.classifier_text(model, images, classes, head, call)

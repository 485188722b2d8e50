"""A classifier of the kan space as one plain torch module: the classes of its layers, and the model made of them."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layersearch.primitives.layers.conv import KANConv2d
from layersearch.primitives.layers.linear import KANLinear
from layersearch.spaces.contracts import JsonObject, PythonFile
from layersearch.spaces.funnel import again
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.export_check import exported_name, largest_difference
from layersearch.spaces.kan.images.evaluate import ImageKANEvaluator
from layersearch.spaces.kan.images.formula import formula
from layersearch.spaces.kan.images.genome import ImageGenome, from_json
from layersearch.spaces.kan.images.network import build
from layersearch.spaces.kan.images.settings import parse
from layersearch.spaces.kan.images.space import ImageKANSpace
from layersearch.spaces.kan.layer_source import LOAD, WIDTH, LayerSource, indented, module_text
from layersearch.spaces.kan.network import LayerPlan
from layersearch.spaces.tasks.checkpoint import unpack
from layersearch.spaces.tasks.images.checkpoint import MODEL
from layersearch.spaces.tasks.images.models import ConvShape, ImageClassifier
from layersearch.spaces.tasks.images.models.vit import Attention, Block, Patches, TokenMean

__all__ = ["python_file", "trained"]

_CLASSES = 10
_IMAGES = 4

_MODEL = '''class Model(nn.Module):
    """A classifier of images, ``[N, {channels}, {side}, {side}] -> [N, {classes}]``: logits.

    It takes {pixels} once ``shift`` and ``scale`` (per channel) are set,
    as ``load`` does; until then they change nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros({channels}, 1, 1))
        self.register_buffer("scale", torch.ones({channels}, 1, 1))
        self.layers = nn.Sequential(
{layers}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers((x - self.shift) / self.scale)
'''


def python_file(genome: JsonObject, settings: JsonObject | None, num_features: int) -> PythonFile:
    """The module of a classifier: for the images of a run, or for ``num_features`` channels and 10 classes.

    Raises: GenomeError.
    """
    parsed = from_json(genome)
    channels, classes, shrink = num_features, _CLASSES, 1
    if settings is not None:
        run = parse(settings)
        channels, classes, shrink = run.in_channels, run.classes, run.task.shrink
    model = build(parsed, channels, classes, generator=torch.Generator().manual_seed(0))
    kind = "a convolutional network" if isinstance(parsed.shape, ConvShape) else "a vision transformer"
    of = "ordinary layers" if parsed.layer.basis == MLP else "KAN layers"
    return PythonFile(
        class_name="Model",
        title=f"Model: {kind} of {of}. Plain PyTorch, needs nothing else.",
        formula=formula(parsed),
        body=_body(model, parsed.shape.side, channels, classes, shrink),
        check=lambda namespace: _difference(parsed, channels, classes, namespace),
    )


def trained(genome: JsonObject, settings: JsonObject, run_seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """See ``kan.export.trained``; the accuracy is that on the hold-out part."""
    parsed = parse(settings)
    evaluator = ImageKANEvaluator(parsed, ImageKANSpace(parsed).load_data(), "cpu")
    outcome, checkpoint = again(evaluator, genome, run_seed)
    tensors, _ = unpack(checkpoint)
    state = {exported_name(name.removeprefix(MODEL)): t for name, t in tensors.items() if name.startswith(MODEL)}
    units = {"shift": evaluator.task.mean, "scale": evaluator.task.std}
    return state | {name: t.float().view(-1, 1, 1) for name, t in units.items()}, dict(outcome.fitness)


def _body(model: ImageClassifier, side: int, channels: int, classes: int, shrink: int) -> str:
    searched = [m for m in model.modules() if isinstance(m, KANConv2d | KANLinear)]
    source = LayerSource(_plan(searched[0])) if searched else None
    parts: list[str] = []
    names = []
    for kind, code in ((KANConv2d, LayerSource.conv), (KANLinear, LayerSource.linear)):
        if source is not None and any(isinstance(m, kind) for m in searched):
            parts.append(code(source))
            names.append(kind.__name__)
    for own in (Patches, Attention, Block, TokenMean):
        if any(isinstance(m, own) for m in model.modules()):
            parts.append(_code(own))
            names.append(own.__name__)
    layers = "\n".join(f"{_written(module, source, WIDTH - 13)}," for module in model)
    of = f"averages over {shrink}x{shrink} pixels of 0 to 255" if shrink > 1 else "pixels of 0 to 255"
    text = _MODEL.format(channels=channels, side=side, classes=classes, pixels=of, layers=indented(layers, 12))
    head = source.constants if source is not None else "\n"
    return module_text(head + "\n\n".join([*parts, text + LOAD]), [*names, "Model"])


def _code(own: type[nn.Module]) -> str:
    """The class as it stands in our own module, without the remarks for type checkers."""
    return re.sub(r"  # type: ignore.*", "", inspect.getsource(own))


def _plan(layer: KANConv2d | KANLinear) -> LayerPlan:
    inputs, outputs = layer.functions.in_features, layer.weight.shape[0]
    return LayerPlan(inputs, outputs, layer.basis, layer.base_name, layer.functions.domain.kind, layer.init)


def _written(module: nn.Module, source: LayerSource | None, width: int) -> str:
    """A module as the expression that makes it, in lines of at most ``width``."""

    def of(*arguments: str | nn.Module) -> str:
        name = type(module).__name__
        texts = [a if isinstance(a, str) else _written(a, source, width - 5) for a in arguments]
        name = name if name in _OURS else f"nn.{name}"
        line = f"{name}({', '.join(texts)})"
        if "\n" not in line and len(line) <= width:
            return line
        return f"{name}(\n" + "\n".join(indented(f"{text},", 4) for text in texts) + "\n)"

    match module:
        case KANConv2d() | KANLinear():
            assert source is not None, "a model with such layers has a source of them"
            kernel = module.kernel_size[0] if isinstance(module, KANConv2d) else None
            return source.call(_plan(module), kernel, width).removesuffix(",")
        case nn.Sequential():
            return of(*module)
        case Block():
            return of(str(module.norm1.normalized_shape[0]), module.attention, module.mlp)
        case Attention():
            return of(module.qkv, module.out, str(module.heads))
        case Patches():
            return of(module.project, str(module.position.shape[0]))
        case nn.Linear():
            return of(str(module.in_features), str(module.out_features))
        case nn.Conv2d():
            sizes = (module.kernel_size[0], module.stride[0], int(module.padding[0]))
            bias = [] if module.bias is not None else ["bias=False"]
            return of(*map(str, (module.in_channels, module.out_channels, *sizes)), *bias)
        case nn.BatchNorm2d():
            return of(str(module.num_features))
        case nn.LayerNorm():
            return of(str(module.normalized_shape[0]))
        case nn.MaxPool2d() | nn.AvgPool2d():
            return of(str(module.kernel_size))
        case nn.AdaptiveAvgPool2d():
            return of("1")
    return of()


_OURS = {own.__name__ for own in (Attention, Block, Patches, TokenMean)}


def _difference(genome: ImageGenome, channels: int, classes: int, namespace: Mapping[str, Any]) -> float:
    """Of the file's ``Model`` from our own; with pixels beyond the intervals of the basis."""
    generator = torch.Generator().manual_seed(0)
    ours = build(genome, channels, classes, generator=generator, dtype=torch.float64)
    side = genome.shape.side
    x = torch.randn(_IMAGES, channels, side, side, generator=generator, dtype=torch.float64) * 2
    return largest_difference(ours, namespace["Model"]().double(), x)

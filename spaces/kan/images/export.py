"""A classifier of the kan space as one plain torch module: the classes of its layers, and the model made of them."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

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
from layersearch.spaces.kan.images.settings import ImageRunSettings, parse
from layersearch.spaces.kan.images.space import ImageKANSpace
from layersearch.spaces.kan.layer_source import LOAD, WIDTH, LayerSource, indented, module_text
from layersearch.spaces.kan.network import LayerPlan
from layersearch.spaces.tasks.checkpoint import MODEL, unpack
from layersearch.spaces.tasks.images.classifier import ClassifierTask
from layersearch.spaces.tasks.images.models import ConvShape, ImageClassifier
from layersearch.spaces.tasks.images.models.vit import Attention, Block, Patches, TokenMean

__all__ = [
    "Images",
    "LayerCall",
    "classifier_text",
    "difference_on_images",
    "exported_state",
    "file_of",
    "python_file",
    "trained",
]

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
        if not torch.jit.is_tracing() and x.shape[1:] != ({channels}, {side}, {side}):
            raise ValueError(f"x must be [N, {channels}, {side}, {side}], got {{list(x.shape)}}")
        return self.layers((x - self.shift) / self.scale)
'''


LayerCall: TypeAlias = Callable[[nn.Module, int], str | None]


@dataclass(frozen=True)
class Images:
    """What a classifier takes and gives."""

    channels: int
    side: int
    classes: int
    shrink: int

    @classmethod
    def of(cls, genome: ImageGenome[Any], settings: ImageRunSettings | None, channels: int) -> "Images":
        """Those of a run, or of 10 classes in so many ``channels``."""
        side = genome.shape.side
        if settings is None:
            return cls(channels, side, _CLASSES, 1)
        return cls(settings.in_channels, side, settings.classes, settings.task.shrink)


def python_file(genome: JsonObject, settings: JsonObject | None, num_features: int) -> PythonFile:
    """The module of a classifier: for the images of a run, or for ``num_features`` channels and 10 classes.

    Raises: GenomeError.
    """
    return file_of(from_json(genome), None if settings is None else parse(settings), num_features)


def file_of(parsed: ImageGenome, settings: ImageRunSettings | None, channels: int) -> PythonFile:
    """The module of a classifier of kan: for the images of a run of any space, or for so many channels."""
    images = Images.of(parsed, settings, channels)
    model = build(parsed, images.channels, images.classes, generator=torch.Generator().manual_seed(0))
    kind = "a convolutional network" if isinstance(parsed.shape, ConvShape) else "a vision transformer"
    of = "ordinary layers" if parsed.layer.basis == MLP else "KAN layers"
    return PythonFile(
        class_name="Model",
        title=f"Model: {kind} of {of}. Plain PyTorch, needs nothing else.",
        formula=formula(parsed),
        body=_body(model, images),
        check=lambda namespace: _difference(parsed, images, namespace),
    )


def trained(genome: JsonObject, settings: JsonObject, run_seed: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """See ``kan.export.trained``; the accuracy is that on the hold-out part."""
    parsed = parse(settings)
    evaluator = ImageKANEvaluator(parsed, ImageKANSpace(parsed).load_data(), "cpu")
    outcome, checkpoint = again(evaluator, genome, run_seed)
    return exported_state(checkpoint, evaluator.task), dict(outcome.fitness)


def exported_state(checkpoint: bytes, task: ClassifierTask) -> dict[str, Tensor]:
    """State dict of ``Model`` with the weights of a checkpoint, and the units of the task."""
    tensors, _ = unpack(checkpoint)
    state = {exported_name(name.removeprefix(MODEL)): t for name, t in tensors.items() if name.startswith(MODEL)}
    units = {"shift": task.mean, "scale": task.std}
    return state | {name: t.float().view(-1, 1, 1) for name, t in units.items()}


def _body(model: ImageClassifier, images: Images) -> str:
    searched = [m for m in model.modules() if isinstance(m, KANConv2d | KANLinear)]
    if not searched:
        return classifier_text(model, images, {}, "\n", _not_searched)
    source = LayerSource(_plan(searched[0]))
    codes = ((KANConv2d, source.conv), (KANLinear, source.linear))
    classes = {kind.__name__: code() for kind, code in codes if any(isinstance(m, kind) for m in searched)}

    def call(module: nn.Module, width: int) -> str | None:
        if not isinstance(module, KANConv2d | KANLinear):
            return None
        kernel = module.kernel_size[0] if isinstance(module, KANConv2d) else None
        return source.call(_plan(module), kernel, width).removesuffix(",")

    return classifier_text(model, images, classes, source.constants, call)


def _not_searched(module: nn.Module, width: int) -> str | None:
    return None


def classifier_text(
    model: ImageClassifier, images: Images, classes: Mapping[str, str], head: str, call: LayerCall
) -> str:
    """The module of a classifier.

    Args:
        model: of ``conv_network`` or ``vit``.
        images: what it takes.
        classes: code of the classes of its searched layers, by name.
        head: constants that these need, with the blank lines that follow.
        call: a searched layer as an expression, in lines of at most that width; None for any other module.
    """
    found = dict(classes)
    for own in (Patches, Attention, Block, TokenMean):
        if any(isinstance(m, own) for m in model.modules()):
            found[own.__name__] = _code(own)
    layers = "\n".join(f"{_written(module, call, WIDTH - 13)}," for module in model)
    n = images.shrink
    of = f"averages over {n}x{n} pixels of 0 to 255" if n > 1 else "pixels of 0 to 255"
    text = _MODEL.format(
        channels=images.channels, side=images.side, classes=images.classes, pixels=of, layers=indented(layers, 12)
    )
    return module_text(head + "\n\n".join([*found.values(), text + LOAD]), [*found, "Model"])


def _code(own: type[nn.Module]) -> str:
    """The class as it stands in our own module, without the remarks for type checkers."""
    return re.sub(r"  # type: ignore.*", "", inspect.getsource(own))


def _plan(layer: KANConv2d | KANLinear) -> LayerPlan:
    inputs, outputs = layer.functions.in_features, layer.weight.shape[0]
    return LayerPlan(inputs, outputs, layer.basis, layer.base_name, layer.functions.domain.kind, layer.init)


def _written(module: nn.Module, call: LayerCall, width: int) -> str:
    """A module as the expression that makes it, in lines of at most ``width``."""

    def of(*arguments: str | nn.Module) -> str:
        name = type(module).__name__
        texts = [a if isinstance(a, str) else _written(a, call, width - 5) for a in arguments]
        name = name if name in _OURS else f"nn.{name}"
        line = f"{name}({', '.join(texts)})"
        if "\n" not in line and len(line) <= width:
            return line
        return f"{name}(\n" + "\n".join(indented(f"{text},", 4) for text in texts) + "\n)"

    searched = call(module, width)
    if searched is not None:
        return searched
    match module:
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


def _difference(genome: ImageGenome, images: Images, namespace: Mapping[str, Any]) -> float:
    generator = torch.Generator().manual_seed(0)
    ours = build(genome, images.channels, images.classes, generator=generator, dtype=torch.float64)
    return difference_on_images(ours, images, generator, namespace)


def difference_on_images(
    ours: ImageClassifier, images: Images, generator: torch.Generator, namespace: Mapping[str, Any]
) -> float:
    """Of the file's ``Model`` from our own in float64; with pixels beyond the intervals of the bases."""
    shape = (_IMAGES, images.channels, images.side, images.side)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    return largest_difference(ours, namespace["Model"]().double(), x)

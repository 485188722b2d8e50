"""What a genome of the kan space is where the data are images: the choices of a layer, and the model around it.

In JSON the key ``kind`` tells it from a genome of plain networks, which has none. Other spaces put layers of their own
into the same models: ``written`` and ``read`` are for any of them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeAlias

from typing_extensions import TypeVar

from layersearch.errors import GenomeError
from layersearch.primitives.registry import unknown_name
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.kan import genome as plain
from layersearch.spaces.kan.choices import MLP, Choice, OneOf, Whole
from layersearch.spaces.kan.genome import KANGenome, check_format
from layersearch.spaces.tasks.images.models.conv import POOLS, ConvShape
from layersearch.spaces.tasks.images.models.vit import ViTShape

__all__ = [
    "CONV",
    "HEADS",
    "KAT",
    "KERNELS",
    "KINDS",
    "LEAST_BLOCKS",
    "MAX_BLOCKS",
    "MAX_DEPTH",
    "MAX_SIDE",
    "MAX_TOKENS",
    "MAX_WIDTH",
    "POOLS",
    "ImageGenome",
    "Shape",
    "check_shape",
    "check_side",
    "from_json",
    "is_image_genome",
    "make",
    "need",
    "read",
    "to_json",
    "written",
]

Shape: TypeAlias = ConvShape | ViTShape
Layer = TypeVar("Layer", default=KANGenome, covariant=True)

CONV, KAT = "conv", "kat"
KINDS = (CONV, KAT)
KERNELS = OneOf((3, 5))
HEADS = OneOf(("kan", "linear"))
LEAST_BLOCKS, MAX_BLOCKS = 1, 8
MAX_DEPTH = 24
MAX_WIDTH = 2048
MAX_SIDE = 256
MAX_TOKENS = 1024

_KEYS = ("format", "kind", "layer", "head", "shape")
_LAYER_KEYS = ("basis", "settings", "base", "domain", "init")
_WIDTH = Whole(1, MAX_WIDTH)
_SHAPES: dict[str, dict[str, Choice]] = {
    CONV: {"side": Whole(4, MAX_SIDE), "stem": _WIDTH, "kernel": KERNELS, "pool": OneOf(POOLS)},
    KAT: {
        "side": Whole(4, MAX_SIDE),
        "patch": Whole(1, MAX_SIDE),
        "width": _WIDTH,
        "depth": Whole(1, MAX_DEPTH),
        "heads": Whole(1, 64),
        "hidden": Whole(1, 4 * MAX_WIDTH),
    },
}


@dataclass(frozen=True)
class ImageGenome(Generic[Layer]):
    """A classifier of images. Made by ``make`` or ``from_json``, which check it.

    Args:
        layer: basis, settings, base branch, domain map and start of every KAN layer; its ``hidden`` are none. With the
            basis ``mlp`` they are ordinary layers, each convolution behind the activation ``base``.
        shape: of a convolutional network, whose blocks are ``KANConv2d``; or of a transformer, whose feed-forward
            parts are two ``KANLinear``: with rationals in groups, GR-KAN.
        head: ``linear`` or ``kan``: what gives the logits.
    """

    layer: Layer
    shape: Shape
    head: str

    @property
    def kind(self) -> str:
        return CONV if isinstance(self.shape, ConvShape) else KAT


def make(layer: KANGenome, shape: Shape, head: str = "linear") -> ImageGenome:
    """A checked genome. Raises: GenomeError with one sentence."""
    genome = ImageGenome(layer.with_widths(()), shape, head)
    _check(genome)
    return genome


def is_image_genome(data: Any) -> bool:
    """Whether plain data are meant to be an ``ImageGenome``."""
    return isinstance(data, dict) and "kind" in data


def to_json(genome: ImageGenome) -> JsonObject:
    """Plain data; inverse of ``from_json``."""
    layer = plain.to_json(genome.layer)
    return written(genome, {key: layer[key] for key in _LAYER_KEYS})


def written(genome: ImageGenome[Any], layer: JsonObject) -> JsonObject:
    """Plain data of a genome whose layer is ``layer``; inverse of ``read``."""
    shape = asdict(genome.shape)
    if isinstance(genome.shape, ConvShape):
        shape["channels"] = list(genome.shape.channels)
    return {"format": plain.FORMAT, "kind": genome.kind, "layer": layer, "head": genome.head, "shape": shape}


def from_json(data: Any) -> ImageGenome:
    """The genome in plain data that anyone may have written.

    Raises: GenomeError with one sentence for anything malformed, illegal or over the limits.
    """

    def layer_of(given: JsonObject) -> KANGenome:
        need("layer of a genome", given, _LAYER_KEYS)
        return plain.from_json({"format": plain.FORMAT, "hidden": [], **given})

    genome = read(data, layer_of)
    _check(genome)
    return genome


def read(data: Any, layer_of: Callable[[Any], Layer]) -> ImageGenome[Layer]:
    """The genome in plain data, its shape unchecked; ``layer_of`` takes its layer, which may be anything.

    Raises: GenomeError with one sentence for anything malformed, and what ``layer_of`` raises.
    """
    need("a genome of images", data, _KEYS)
    check_format(data["format"])
    kind = data["kind"]
    if kind not in KINDS:
        raise GenomeError(str(unknown_name("kind of a genome", f"{kind!s:.40}", list(KINDS))))
    layer = layer_of(data["layer"])
    given = data["shape"]
    if kind == CONV:
        need(f"shape of a {CONV} genome", given, (*_SHAPES[CONV], "channels"))
        channels = given["channels"]
        if not isinstance(channels, list):
            raise GenomeError(f"channels of a genome must be a list, got {channels!r:.40}; correct it")
        shape: Shape = ConvShape(**{**given, "channels": tuple(channels)})
    else:
        need(f"shape of a {KAT} genome", given, tuple(_SHAPES[KAT]))
        shape = ViTShape(**given)
    return ImageGenome(layer, shape, data["head"])


def check_side(genome: ImageGenome[Any], side: int) -> None:
    """Raises: GenomeError for a genome of images of another side than that of a run."""
    if genome.shape.side != side:
        raise GenomeError(f"side of a genome must be that of the images, {side}, got {genome.shape.side}")


def need(what: str, data: Any, keys: tuple[str, ...]) -> None:
    """Raises: GenomeError unless ``data`` is an object with these keys, and no others."""
    if not isinstance(data, dict) or sorted(map(str, data)) != sorted(keys):
        found = (
            f"one with {', '.join(map(str, list(data)[:8])) or 'nothing'}" if isinstance(data, dict) else f"{data!r}"
        )
        raise GenomeError(f"{what} must be an object with {', '.join(keys)}, got {found:.120}; correct it")


def _check(genome: ImageGenome) -> None:
    check_shape(genome)
    if genome.layer.basis == MLP and genome.head != "linear":
        raise GenomeError(f"head of a genome without a basis must be 'linear', got '{genome.head}'; correct the genome")


def check_shape(genome: ImageGenome[Any]) -> None:
    """Raises: GenomeError with one sentence for a head or shape that is illegal."""
    shape = genome.shape
    parts: list[tuple[str, Choice, object]] = [("head", HEADS, genome.head)]
    parts += [(name, choice, getattr(shape, name)) for name, choice in _SHAPES[genome.kind].items()]
    if isinstance(shape, ConvShape):
        n_blocks = len(shape.channels)
        if not LEAST_BLOCKS <= n_blocks <= MAX_BLOCKS:
            raise GenomeError(
                f"channels of a genome must be {LEAST_BLOCKS} to {MAX_BLOCKS}, got {n_blocks}; correct it"
            )
        parts += [("channels", _WIDTH, width) for width in shape.channels]
    for name, choice, value in parts:
        if not choice.holds(value):
            raise GenomeError(f"{name} of a genome must be {choice}, got {value!r:.40}; correct the genome")
    if isinstance(shape, ViTShape):
        if shape.side % shape.patch or shape.tokens > MAX_TOKENS:
            raise GenomeError(
                f"patch of a genome must divide the side {shape.side} into at most {MAX_TOKENS} patches, got "
                f"{shape.patch}; correct the genome"
            )
        if shape.width % shape.heads:
            raise GenomeError(f"heads of a genome must divide the width {shape.width}, got {shape.heads}; correct it")

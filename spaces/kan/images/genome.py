"""What a genome of the kan space is where the data are images: the choices of a layer, and the model around it.

In JSON the key ``kind`` tells it from a genome of plain networks, which has none.
"""

from dataclasses import asdict, dataclass
from typing import Any

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
    "from_json",
    "is_image_genome",
    "make",
    "to_json",
]

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
class ImageGenome:
    """A classifier of images. Made by ``make`` or ``from_json``, which check it.

    Args:
        layer: basis, settings, base branch, domain map and start of every KAN layer; its ``hidden`` are none. With the
            basis ``mlp`` they are ordinary layers, each convolution behind the activation ``base``.
        shape: of a convolutional network, whose blocks are ``KANConv2d``; or of a transformer, whose feed-forward
            parts are two ``KANLinear``: with rationals in groups, GR-KAN.
        head: ``linear`` or ``kan``: what gives the logits.
    """

    layer: KANGenome
    shape: ConvShape | ViTShape
    head: str

    @property
    def kind(self) -> str:
        return CONV if isinstance(self.shape, ConvShape) else KAT


def make(layer: KANGenome, shape: ConvShape | ViTShape, head: str = "linear") -> ImageGenome:
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
    shape = asdict(genome.shape)
    if isinstance(genome.shape, ConvShape):
        shape["channels"] = list(genome.shape.channels)
    return {
        "format": plain.FORMAT,
        "kind": genome.kind,
        "layer": {key: layer[key] for key in _LAYER_KEYS},
        "head": genome.head,
        "shape": shape,
    }


def from_json(data: Any) -> ImageGenome:
    """The genome in plain data that anyone may have written.

    Raises: GenomeError with one sentence for anything malformed, illegal or over the limits.
    """
    _need("a genome of images", data, _KEYS)
    check_format(data["format"])
    kind = data["kind"]
    if kind not in KINDS:
        raise GenomeError(str(unknown_name("kind of a genome", f"{kind!s:.40}", list(KINDS))))
    _need("layer of a genome", data["layer"], _LAYER_KEYS)
    layer = plain.from_json({"format": plain.FORMAT, "hidden": [], **data["layer"]})
    given = data["shape"]
    if kind == CONV:
        _need(f"shape of a {CONV} genome", given, (*_SHAPES[CONV], "channels"))
        channels = given["channels"]
        if not isinstance(channels, list):
            raise GenomeError(f"channels of a genome must be a list, got {channels!r:.40}; correct it")
        shape: ConvShape | ViTShape = ConvShape(**{**given, "channels": tuple(channels)})
    else:
        _need(f"shape of a {KAT} genome", given, tuple(_SHAPES[KAT]))
        shape = ViTShape(**given)
    genome = ImageGenome(layer, shape, data["head"])
    _check(genome)
    return genome


def _need(what: str, data: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(data, dict) or sorted(map(str, data)) != sorted(keys):
        found = (
            f"one with {', '.join(map(str, list(data)[:8])) or 'nothing'}" if isinstance(data, dict) else f"{data!r}"
        )
        raise GenomeError(f"{what} must be an object with {', '.join(keys)}, got {found:.120}; correct it")


def _check(genome: ImageGenome) -> None:
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
    if genome.layer.basis == MLP and genome.head != "linear":
        raise GenomeError(f"head of a genome without a basis must be 'linear', got '{genome.head}'; correct the genome")
    if isinstance(shape, ViTShape):
        if shape.side % shape.patch or shape.tokens > MAX_TOKENS:
            raise GenomeError(
                f"patch of a genome must divide the side {shape.side} into at most {MAX_TOKENS} patches, got "
                f"{shape.patch}; correct the genome"
            )
        if shape.width % shape.heads:
            raise GenomeError(f"heads of a genome must divide the width {shape.width}, got {shape.heads}; correct it")

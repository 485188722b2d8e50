"""Genomes as classifiers of images: how many parameters and operations they have, and the modules."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from layersearch.errors import GenomeError, LayerSearchError
from layersearch.primitives.layers._lowered import set_lowering
from layersearch.primitives.layers.conv import KANConv2d
from layersearch.spaces.kan.choices import MLP
from layersearch.spaces.kan.images.genome import ImageGenome
from layersearch.spaces.kan.network import LayerPlan, layer_plan, linear_of
from layersearch.spaces.tasks.images.models import ConvShape, ImageClassifier, conv_network, vit
from layersearch.spaces.tasks.images.models.conv import STEM_KERNEL
from layersearch.spaces.tasks.plain_layers import seeded_conv2d, seeded_linear

__all__ = [
    "ELEMENTWISE",
    "MODULES",
    "build",
    "canonical",
    "canonical_shape",
    "count_parameters",
    "frame_parameters",
    "operations",
    "searched_layers",
    "stem_operations",
]

MODULES: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
"""Activations of genomes without a basis."""

ELEMENTWISE = 12
"""Operations of a product that one of a function costs. Measured on 70 random models, training on one CPU core: with
it, ``operations`` and the number of tensors tell the time within a factor of 2 or so (2026-11-25).
"""


@dataclass(frozen=True)
class SearchedLayer:
    """One layer that the genome chooses.

    Args:
        inputs, outputs: I and O.
        places: of the kernel; 1 for a linear layer.
        positions: of the image, or tokens, it is applied to.
        plan: of a KAN layer; ``None`` for an ordinary one.
    """

    inputs: int
    outputs: int
    places: int
    positions: int
    plan: LayerPlan | None

    @property
    def n_parameters(self) -> int:
        if self.plan is None:
            return self.inputs * self.outputs * self.places + self.outputs
        return self.plan.n_parameters_of(self.places)

    @property
    def operations(self) -> float:
        """For one image, forward: two for each weight, and those of the functions, once per input, as ELEMENTWISE."""
        edges = self.inputs * self.outputs * self.places
        if self.plan is None:
            return self.positions * 2.0 * edges
        per_edge = self.plan.basis.n_functions + (self.plan.base is not None)
        return self.positions * (ELEMENTWISE * self.inputs * self.plan.basis.flops + 2.0 * edges * per_edge)


def searched_layers(genome: ImageGenome, classes: int) -> Iterator[SearchedLayer]:
    """The blocks' layers in order, then the head."""
    shape, layer = genome.shape, genome.layer
    is_plain = layer.basis == MLP

    def planned(inputs: int, outputs: int, start: str | None = None) -> LayerPlan | None:
        return None if is_plain else layer_plan(layer, inputs, outputs, start=start)

    if isinstance(shape, ConvShape):
        for n_in, n_out, side, _ in shape.blocks():
            yield SearchedLayer(n_in, n_out, shape.kernel**2, side**2, planned(n_in, n_out))
        features = shape.channels[-1]
    else:
        for _ in range(shape.depth):
            # As in KAT: a rational before the first layer starts as the identity.
            first = planned(shape.width, shape.hidden, "identity")
            yield SearchedLayer(shape.width, shape.hidden, 1, shape.tokens, first)
            yield SearchedLayer(shape.hidden, shape.width, 1, shape.tokens, planned(shape.hidden, shape.width))
        features = shape.width
    head = planned(features, classes) if genome.head == "kan" else None
    yield SearchedLayer(features, classes, 1, 1, head)


def count_parameters(genome: ImageGenome, in_channels: int, classes: int) -> int:
    """Trained numbers of ``build``, without building it."""
    shape = genome.shape
    count = sum(layer.n_parameters for layer in searched_layers(genome, classes))
    if isinstance(shape, ConvShape):
        return count + frame_parameters(shape, in_channels)
    width = shape.width
    embedding = (in_channels * shape.patch**2 + 1) * width + shape.tokens * width
    block = (width + 1) * 3 * width + (width + 1) * width + 4 * width
    return count + embedding + shape.depth * block + 2 * width


def operations(genome: ImageGenome, in_channels: int, classes: int) -> float:
    """What one image costs forward, in operations of a product; norms, pooling and activations left out.

    An image of a training step costs three times that.
    """
    shape = genome.shape
    total = sum(layer.operations for layer in searched_layers(genome, classes))
    if isinstance(shape, ConvShape):
        return total + stem_operations(shape, in_channels)
    width, tokens = shape.width, shape.tokens
    attention = 8.0 * tokens * width**2 + 4.0 * tokens**2 * width
    return total + 2.0 * tokens * in_channels * shape.patch**2 * width + shape.depth * attention


def frame_parameters(shape: ConvShape, in_channels: int) -> int:
    """Of the stem and the norms: all but the searched layers."""
    return in_channels * shape.stem * STEM_KERNEL**2 + 2 * sum((shape.stem, *shape.channels))


def stem_operations(shape: ConvShape, in_channels: int) -> float:
    positions = next(shape.blocks())[2] ** 2
    return 2.0 * positions * in_channels * shape.stem * STEM_KERNEL**2


def canonical_shape(shape: ConvShape) -> ConvShape:
    """Without a kind of pooling where nothing is pooled."""
    return shape if any(pooled for *_, pooled in shape.blocks()) else replace(shape, pool="none")


def canonical(genome: ImageGenome, classes: int) -> tuple[object, ...]:
    """Equal for genomes that stand for the same layers: what makes no difference is dropped."""
    shape = genome.shape
    if isinstance(shape, ConvShape):
        shape = canonical_shape(shape)
    activation = genome.layer.base if genome.layer.basis == MLP else ""
    return (shape, activation, tuple(searched_layers(genome, classes)))


def build(
    genome: ImageGenome,
    in_channels: int,
    classes: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> ImageClassifier:
    """The classifier of a genome, ``[N, in_channels, S, S] -> [N, classes]``.

    Weights are drawn on the CPU from ``generator``, or from torch's own one.

    Raises: GenomeError if the layers cannot be made for these sizes.
    """
    layer, shape = genome.layer, genome.shape

    def conv(n_in: int, n_out: int, kernel: int) -> nn.Module:
        if layer.basis == MLP:
            plain = seeded_conv2d(n_in, n_out, kernel, padding=kernel // 2, generator=generator, dtype=dtype)
            return nn.Sequential(MODULES[layer.base](), plain)
        plan = layer_plan(layer, n_in, n_out)
        return KANConv2d(
            n_in,
            n_out,
            kernel,
            padding=kernel // 2,
            basis=plan.basis,
            base=plan.base,
            domain=plan.domain,
            init=plan.init,
            generator=generator,
            dtype=dtype,
        )

    def mlp(width: int, hidden: int) -> nn.Module:
        if layer.basis == MLP:
            first, last = (seeded_linear(i, o, generator, dtype) for i, o in ((width, hidden), (hidden, width)))
            return nn.Sequential(first, MODULES[layer.base](), last)
        plans = (layer_plan(layer, width, hidden, start="identity"), layer_plan(layer, hidden, width))
        return nn.Sequential(*(linear_of(plan, generator, dtype) for plan in plans))

    def head(features: int) -> nn.Module:
        if genome.head == "kan":
            return linear_of(layer_plan(layer, features, classes), generator, dtype)
        return seeded_linear(features, classes, generator, dtype)

    try:
        if isinstance(shape, ConvShape):
            model = conv_network(shape, conv, head, in_channels=in_channels, generator=generator, dtype=dtype)
        else:
            model = vit(shape, mlp, head, in_channels=in_channels, generator=generator, dtype=dtype)
    except LayerSearchError as error:
        raise GenomeError(f"the layers of a genome must fit its sizes, but {error}") from None
    set_lowering(model, "torch")  # results do not depend on a compiler
    return model.to(device)

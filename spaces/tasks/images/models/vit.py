"""A small vision transformer: patches, blocks of attention and a feed-forward part that is handed in, mean, head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.spaces.tasks.images.models.classifier import ImageClassifier
from layersearch.spaces.tasks.images.models.conv import MakeHead
from layersearch.spaces.tasks.plain_layers import seeded_conv2d, seeded_linear

__all__ = ["Attention", "Block", "MakeMLP", "Patches", "TokenMean", "ViTShape", "vit"]

MakeMLP: TypeAlias = Callable[[int, int], nn.Module]
"""``make(width, hidden)`` gives the feed-forward part of a block, ``[N, T, width] -> [N, T, width]``."""

_POSITION_DEVIATION = 0.02


@dataclass(frozen=True)
class ViTShape:
    """Sizes of a ``vit``.

    Args:
        side: of the images in pixels; the number of tokens is fixed by it.
        patch: side of the patches, a divisor of ``side``.
        width: of the tokens, a multiple of ``heads``.
        depth: number of blocks.
        heads: of the attention.
        hidden: width of the feed-forward part.
    """

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int

    @property
    def tokens(self) -> int:
        return (self.side // self.patch) ** 2


class Patches(nn.Module):
    """``[N, C, S, S] -> [N, T, D]``: each patch by one matrix, plus a learnt vector for its place."""

    def __init__(self, project: nn.Conv2d, tokens: int) -> None:
        super().__init__()
        self.project = project
        self.position = nn.Parameter(torch.zeros(tokens, project.out_channels, dtype=project.weight.dtype))

    def no_weight_decay(self) -> set[str]:
        return {"position"}

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x).flatten(2).transpose(1, 2) + self.position  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention, ``[N, T, D] -> [N, T, D]``."""

    def __init__(self, qkv: nn.Linear, out: nn.Linear, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = qkv, out, heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, attention: Attention, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = attention, mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class TokenMean(nn.Module):
    """``[N, T, D] -> [N, D]``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def vit(
    shape: ViTShape,
    mlp: MakeMLP,
    head: MakeHead,
    *,
    in_channels: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> ImageClassifier:
    """A pre-norm transformer with ``mlp`` in every block and ``head`` on the mean token.

    Layer norm stands before every ``mlp``, so that it gets inputs of mean 0 and variance 1. What the functions make is
    drawn by them, in the order of the layers; all else from ``generator``. Source: arXiv:2010.11929, with the mean of
    the tokens in place of a class token.
    """
    width = shape.width
    project = seeded_conv2d(in_channels, width, shape.patch, shape.patch, generator=generator, dtype=dtype)
    patches = Patches(project, shape.tokens)
    with torch.no_grad():
        patches.position.normal_(0.0, _POSITION_DEVIATION, generator=generator)
    layers: list[nn.Module] = [patches]
    for _ in range(shape.depth):
        qkv = seeded_linear(width, 3 * width, generator, dtype)
        out = seeded_linear(width, width, generator, dtype)
        layers.append(Block(width, Attention(qkv, out, shape.heads), mlp(width, shape.hidden)).to(dtype))
    layers += [nn.LayerNorm(width, dtype=dtype), TokenMean(), head(width)]
    return ImageClassifier(*layers)

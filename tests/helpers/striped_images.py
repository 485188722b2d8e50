"""A data set and networks so small that a training takes milliseconds, and that can be learnt."""

from typing import Any

import numpy as np

from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.images import AnchorSettings, ImageData, ImageSettings, preset, to_arrays

__all__ = ["striped_arrays", "tiny_settings"]


def tiny_settings(**changes: Any) -> ImageSettings:
    tiny = tuple(AnchorSettings(network=n, width=0.05, depth=0.125) for n in ("efficientnet", "mobilenetv2", "resnet"))
    return preset("smoke", "digits").replace(
        **{"batch": 16, "anchors": tiny, "quality_steps": 3, "fitness_steps": 9, "padding": 1, **changes}
    )


def striped_arrays() -> Arrays:
    """Images with stripes: the class is their direction and distance."""
    rng = np.random.default_rng(0)
    labels = np.arange(240, dtype=np.int64) % 10
    pixels = rng.integers(0, 60, (240, 1, 16, 16), dtype=np.uint8)
    for pixel, label in zip(pixels, labels, strict=True):
        lines = pixel[0] if label % 2 else pixel[0].T
        lines[:: 2 + label // 2] = 250
    return to_arrays(ImageData(pixels[:200], labels[:200], pixels[200:], labels[200:], 10, "digits"))

"""Three sizes of the image task: smoke (minutes on a laptop), small (hours), paper (the published recipe)."""

from collections.abc import Callable
from typing import Any, Literal

from layersearch.primitives.registry import Registry
from layersearch.spaces.tasks.images.data import IMAGE_SETS, ImageSet
from layersearch.spaces.tasks.images.settings import AnchorSettings, ImageSettings

__all__ = ["PRESETS", "preset"]


def _anchors(**sizes: tuple[float, float]) -> tuple[AnchorSettings, ...]:
    return tuple(AnchorSettings(network=name, width=width, depth=depth) for name, (width, depth) in sizes.items())


def _framing(known: ImageSet, crop: int, padding: int) -> dict[str, Any]:
    """Crops of ``crop`` pixels where the images are larger, of padded images where they are not."""
    if known.side > crop:
        return {"image_size": known.side, "crop": crop, "padding": 0, "eval_size": known.side}
    return {"image_size": known.side, "crop": known.side, "padding": padding, "eval_size": known.side}


def _smoke(known: ImageSet) -> dict[str, Any]:
    shrink = 1 if known.side <= 16 else 2
    side = known.side // shrink
    return {
        "shrink": shrink,
        "image_size": side,
        "crop": side,
        "padding": 1,
        "eval_size": side,
        "anchors": _anchors(efficientnet=(0.125, 0.2), mobilenetv2=(0.125, 0.2), resnet=(0.125, 0.15)),
        "batch": 32,
        "eval_batch": 256,
        "learning_rate": 0.03,
        "fitness_steps": 150,
        "rerank_steps": 150,
        "rerank_width": 1.5,
        "validation_cap": 1000,
        "groups": 8,
    }


def _small(known: ImageSet) -> dict[str, Any]:
    return {
        **_framing(known, crop=24, padding=2),
        "anchors": _anchors(efficientnet=(0.125, 0.2), mobilenetv2=(0.125, 0.2), resnet=(0.25, 0.15)),
        "batch": 64,
        "eval_batch": 256,
        "learning_rate": 0.05,
        "fitness_steps": 200,
        "rerank_steps": 1000,
        "rerank_width": 2.0,
        "validation_cap": 2000,
        "groups": 8,
    }


def _paper(known: ImageSet) -> dict[str, Any]:
    """Source: Liu et al. 2020, arXiv:2004.02967."""
    return {
        **_framing(known, crop=24, padding=2),
        "anchors": _anchors(efficientnet=(0.5, 1.0), mobilenetv2=(0.5, 1.0), resnet=(0.25, 1.0)),
        "batch": 128,
        "eval_batch": 512,
        "learning_rate": 0.1,
        "fitness_steps": 2000,
        "rerank_steps": 5000,
        "rerank_width": 2.0,
        "validation_cap": 5000,
        "groups": 32,
    }


PRESETS: Registry[Callable[[ImageSet], dict[str, Any]]] = Registry("preset")
PRESETS.add("paper", _paper)
PRESETS.add("small", _small)
PRESETS.add("smoke", _smoke)


def preset(name: str, data: str, series: Literal["b", "s"] = "b") -> ImageSettings:
    """The settings of preset ``name`` for the data set ``data``. Raises: UnknownNameError for either name.

    As published, layers of the B series are trained at a constant rate, those of the S series along a cosine, and in
    ``paper`` for 5,000 steps in place of 2,000.
    """
    known = IMAGE_SETS[data]
    values = {**PRESETS[name](known), "data": data, "flip": known.flip, "schedule": "constant"}
    if data == "digits":  # 1,797 images in all: larger parts, or validation would be too coarse to rank by
        values |= {"validation_fraction": 0.2, "holdout_fraction": 0.15}
    if series == "s":
        values["schedule"] = "cosine"
        if name == "paper":
            values["fitness_steps"] = 5000
    return ImageSettings(**values)

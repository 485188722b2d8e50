"""Three sizes of the image task: smoke (minutes on a laptop), small (hours), paper (the published recipe)."""

from collections.abc import Callable
from typing import Any, Literal

from layersearch.primitives.registry import Registry
from layersearch.spaces.tasks.images.data import IMAGE_SETS, ImageSet
from layersearch.spaces.tasks.images.settings import AnchorSettings, ImageSettings

__all__ = ["PRESETS", "preset"]


def _anchors(**sizes: tuple[float, float]) -> tuple[AnchorSettings, ...]:
    """Anchors by (width, depth), the cheapest first: a layer that fails there costs least."""
    return tuple(AnchorSettings(network=name, width=width, depth=depth) for name, (width, depth) in sizes.items())


def _framing(known: ImageSet, crop: int, padding: int) -> dict[str, Any]:
    """Crops of ``crop`` pixels where the images are larger, of padded images where they are not."""
    if known.side > crop:
        return {"image_size": known.side, "crop": crop, "padding": 0, "eval_size": known.side}
    return {"image_size": known.side, "crop": known.side, "padding": padding, "eval_size": known.side}


def _smoke(known: ImageSet) -> dict[str, Any]:
    """Images of 14 or 16 pixels, networks of a few blocks, no augmentation."""
    # Measured on one loaded Zen 4 core, torch lowering, 2026-11, scaled from 100 steps. Training and both evaluations
    # on the three networks cost 13.3 core-seconds for EvoNorm-B0, 12.9 for BN-ReLU as a graph, 9.7 for EvoNorm-S0,
    # 8.8 for BN-SiLU, and 3.8 for nn.BatchNorm2d + nn.ReLU. Accuracy after the 100 quality steps (efficientnet,
    # mobilenetv2, resnet): digits, BN-ReLU .96 .96 .97, GN-ReLU .92 .94 .97; CIFAR-10, BN-ReLU .29 .30 .32, GN-ReLU
    # .26 .24 .24.
    # GN-ReLU decides the recipe: on CIFAR-10 at a constant rate of .03, with crops, flips and 8 groups it stayed at
    # .16 to .20 on the two inverted networks (limit .20); a wider net, another init or a rate of .1 did not suffice,
    # while a cosine, no augmentation and 4 groups lift it to .23 to .28 on every network, five seeds of five.
    shrink = 1 if known.side <= 16 else 2
    side = known.side // shrink
    return {
        "shrink": shrink,
        "image_size": side,
        "crop": side,
        "flip": False,
        "eval_size": side,
        "anchors": _anchors(resnet=(0.125, 0.15), mobilenetv2=(0.25, 0.2), efficientnet=(0.125, 0.2)),
        "batch": 32,
        "eval_batch": 256,
        "learning_rate": 0.05,
        "schedule": "cosine",
        "fitness_steps": 125,
        "rerank_steps": 100,
        "rerank_width": 1.5,
        "validation_cap": 1000,
        "groups": 4,
    }


def _small(known: ImageSet) -> dict[str, Any]:
    """Crops of 24 pixels and evaluation on whole images, as published, on networks that a core can train."""
    # Measured as above on CIFAR-10, scaled from 20 steps: 0.51 core-seconds per step on the three networks together
    # for EvoNorm-B0, 0.40 for BN-ReLU as a graph, 0.12 for nn.BatchNorm2d + nn.ReLU; with both evaluations 106, 84 and
    # 24 per candidate. Accuracy after the 100 quality steps, one seed, in a horizon of 200 (efficientnet, mobilenetv2,
    # resnet): BN-ReLU .30 .32 .37, GN-ReLU .30 .24 .31, with 8 groups .22 .26 .27; in that of 180, two
    # seeds: GN-ReLU .30 .27 .32.
    return {
        **_framing(known, crop=24, padding=2),
        "anchors": _anchors(resnet=(0.25, 0.15), mobilenetv2=(0.25, 0.2), efficientnet=(0.125, 0.2)),
        "batch": 64,
        "eval_batch": 256,
        "learning_rate": 0.05,
        "schedule": "cosine",
        "fitness_steps": 180,
        "rerank_steps": 1000,
        "rerank_width": 2.0,
        "validation_cap": 1500,
        "groups": 4,
    }


def _paper(known: ImageSet) -> dict[str, Any]:
    """Source: Liu et al. 2020, arXiv:2004.02967."""
    return {
        **_framing(known, crop=24, padding=2),
        "anchors": _anchors(resnet=(0.25, 1.0), mobilenetv2=(0.5, 1.0), efficientnet=(0.5, 1.0)),
        "batch": 128,
        "eval_batch": 512,
        "learning_rate": 0.1,
        "schedule": "constant",
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

    In ``paper``, as published, layers of the B series are trained for 2,000 steps at a constant rate, those of the S
    series for 5,000 along a cosine.
    """
    known = IMAGE_SETS[data]
    values = {"data": data, "flip": known.flip, **PRESETS[name](known)}
    if data == "digits":  # 1,797 images in all: larger parts, or validation would be too coarse to rank by
        values |= {"validation_fraction": 0.2, "holdout_fraction": 0.15}
    if name == "paper" and series == "s":
        values |= {"schedule": "cosine", "fitness_steps": 5000}
    return ImageSettings(**values)

"""The image task: data sets, anchor networks, and a training recipe that spaces of layers share.

Names are resolved on first use: networks and training steps need torch alone, the recipe pydantic, too.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layersearch.spaces.tasks.images.checkpoint import Progress, read_checkpoint, write_checkpoint
    from layersearch.spaces.tasks.images.classifier import ClassifierTask, Evaluation, OnStep, Part, TrainResult
    from layersearch.spaces.tasks.images.data import (
        IMAGE_SETS,
        ImageData,
        ImageSet,
        from_arrays,
        load_images,
        to_arrays,
    )
    from layersearch.spaces.tasks.images.networks import NETWORKS, BuildNetwork, ChannelAffine, Layer
    from layersearch.spaces.tasks.images.presets import PRESETS, preset
    from layersearch.spaces.tasks.images.settings import AnchorSettings, ImageRecipe, ImageSettings
    from layersearch.spaces.tasks.images.splits import Parts, split
    from layersearch.spaces.tasks.images.training import ImageTask

__all__ = [
    "IMAGE_SETS",
    "NETWORKS",
    "PRESETS",
    "AnchorSettings",
    "BuildNetwork",
    "ChannelAffine",
    "ClassifierTask",
    "Evaluation",
    "ImageData",
    "ImageRecipe",
    "ImageSet",
    "ImageSettings",
    "ImageTask",
    "Layer",
    "OnStep",
    "Part",
    "Parts",
    "Progress",
    "TrainResult",
    "from_arrays",
    "load_images",
    "preset",
    "read_checkpoint",
    "split",
    "to_arrays",
    "write_checkpoint",
]

_MODULES = {
    "checkpoint": ("Progress", "read_checkpoint", "write_checkpoint"),
    "classifier": ("ClassifierTask", "Evaluation", "OnStep", "Part", "TrainResult"),
    "data": ("IMAGE_SETS", "ImageData", "ImageSet", "from_arrays", "load_images", "to_arrays"),
    "networks": ("NETWORKS", "BuildNetwork", "ChannelAffine", "Layer"),
    "presets": ("PRESETS", "preset"),
    "settings": ("AnchorSettings", "ImageRecipe", "ImageSettings"),
    "splits": ("Parts", "split"),
    "training": ("ImageTask",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute {name!r}")

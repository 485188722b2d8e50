"""The image task: data sets, anchor networks, and a training recipe that spaces of layers share."""

from layersearch.spaces.tasks.images.checkpoint import Progress, read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.images.data import IMAGE_SETS, ImageData, ImageSet, from_arrays, load_images, to_arrays
from layersearch.spaces.tasks.images.networks import NETWORKS, BuildNetwork, ChannelAffine, Layer
from layersearch.spaces.tasks.images.presets import PRESETS, preset
from layersearch.spaces.tasks.images.settings import AnchorSettings, ImageSettings
from layersearch.spaces.tasks.images.splits import Parts, split
from layersearch.spaces.tasks.images.training import Evaluation, ImageTask, OnStep, Part, TrainResult

__all__ = [
    "IMAGE_SETS",
    "NETWORKS",
    "PRESETS",
    "AnchorSettings",
    "BuildNetwork",
    "ChannelAffine",
    "Evaluation",
    "ImageData",
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

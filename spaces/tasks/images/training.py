"""Trains and evaluates anchor networks on one data set: the image task of a worker."""

import torch
from torch import nn

from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.drawing import seeded
from layersearch.spaces.tasks.images.classifier import ClassifierTask, Evaluation, OnStep, Part, TrainResult
from layersearch.spaces.tasks.images.networks import NETWORKS, Layer
from layersearch.spaces.tasks.images.settings import ImageSettings

__all__ = ["Evaluation", "ImageTask", "OnStep", "Part", "TrainResult"]


class ImageTask(ClassifierTask):
    """A ``ClassifierTask`` that builds the anchor networks of its settings."""

    settings: ImageSettings

    def __init__(self, arrays: Arrays, settings: ImageSettings, device: str | torch.device = "cpu") -> None:
        super().__init__(arrays, settings, device)

    def build(self, network: str, layer: Layer, seed: int, *, width: float = 1.0) -> nn.Module:
        """An anchor network on the device with ``layer`` at every site; ``width`` multiplies that of its settings.

        The initial weights depend on ``seed`` alone, and no global generator moves.
        """
        size = self.settings.anchor(network)
        with seeded(Seeds(seed).derive("init", network)):
            model = NETWORKS[network](
                layer,
                in_channels=self.in_channels,
                classes=self.classes,
                image_size=self.settings.crop,
                width=size.width * width,
                depth=size.depth,
            )
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

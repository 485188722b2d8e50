"""Small classifiers of images around layers that are handed in: a convolutional network and a vision transformer.

Spaces of whole networks search them; spaces of norm-activation layers have ``networks`` instead.
"""

from layersearch.spaces.tasks.images.models.classifier import ImageClassifier
from layersearch.spaces.tasks.images.models.conv import ConvShape, conv_network
from layersearch.spaces.tasks.images.models.vit import ViTShape, vit

__all__ = ["ConvShape", "ImageClassifier", "ViTShape", "conv_network", "vit"]

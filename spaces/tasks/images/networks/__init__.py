"""The anchor networks a candidate layer is judged in: one layer must do well in all of them."""

from layersearch.primitives.registry import Registry
from layersearch.spaces.tasks.images.networks.blocks import MIN_DEPTH, MIN_SIDE, BuildNetwork, ChannelAffine, Layer
from layersearch.spaces.tasks.images.networks.efficientnet import efficientnet
from layersearch.spaces.tasks.images.networks.mobilenetv2 import mobilenetv2
from layersearch.spaces.tasks.images.networks.resnet import resnet

__all__ = ["MIN_DEPTH", "MIN_SIDE", "NETWORKS", "BuildNetwork", "ChannelAffine", "Layer"]

NETWORKS: Registry[BuildNetwork] = Registry("anchor network")
NETWORKS.add("efficientnet", efficientnet)
NETWORKS.add("mobilenetv2", mobilenetv2)
NETWORKS.add("resnet", resnet)

"""The kan space on images: convolutional networks and transformers around the same layers."""

__all__: list[str] = []

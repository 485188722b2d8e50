"""The skan space on images: convolutional networks whose channels learn which basis to have (S-ConvKAN)."""

__all__: list[str] = []

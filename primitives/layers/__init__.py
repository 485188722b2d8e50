"""Layers made of bases: KAN on vectors and images, group rationals, learnable attention."""

__all__: list[str] = []

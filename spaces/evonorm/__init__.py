"""Normalization-activation layers as graphs of low-level ops (Liu et al. 2020, arXiv:2004.02967)."""

__all__: list[str] = []

"""Families of functions of one number, evaluated for every element of a tensor and laid out for one matrix product.

A family reaches a kernel as data: its form, formulas of one number, and tensors of coefficients.
"""

__all__: list[str] = []

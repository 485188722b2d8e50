"""Grouped quotients of polynomials, ``P(x) / (1 + |x Q(x)|)``: degrees are compiled in, coefficients are tensors."""

__all__: list[str] = []

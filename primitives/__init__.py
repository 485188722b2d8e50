"""What layers are made of: ops, graphs, canonical forms, printed formulas, and the lowerings that run them."""

__all__: list[str] = []

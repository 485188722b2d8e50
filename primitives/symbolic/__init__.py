"""Reads trained KAN layers: curves of edges, their symbolic match, what can be pruned, one formula, one picture."""

__all__: list[str] = []

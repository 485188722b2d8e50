"""Layers of click-through models: the table of embeddings, crosses, Dice, the local activation unit."""

__all__: list[str] = []

"""The bases, one file each; ``layersearch.primitives.basis.BASES`` finds them here."""

__all__: list[str] = []

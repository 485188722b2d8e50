"""The ops of the EvoNorm space, one file per op type; ``layersearch.primitives.op.OPS`` finds them here."""

__all__: list[str] = []

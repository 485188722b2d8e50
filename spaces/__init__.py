"""Search spaces: which genomes are legal, how one becomes a layer, and how it is judged."""

__all__: list[str] = []

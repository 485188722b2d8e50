"""Ways to run a graph, one result: ``reference`` is the oracle, ``torch`` what training and exported files use."""

from layersearch.primitives.lowering.base import LOWERINGS, Lowering, build_layer

__all__ = ["LOWERINGS", "Lowering", "build_layer"]

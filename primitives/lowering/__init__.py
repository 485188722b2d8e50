"""Ways to run a graph, one result.

``reference`` is the oracle, ``torch`` is plain torch and what exported files hold, ``c`` is fused for the CPU,
``triton`` for CUDA.
"""

from layersearch.primitives.lowering.base import LOWERINGS, Lowering, available, build_layer, fastest

__all__ = ["LOWERINGS", "Lowering", "available", "build_layer", "fastest"]

"""Discovers neural-network layers and ships them as plain PyTorch files.

Public names are resolved on first use, so that ``import layersearch`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_LAZY = {
    "Layer": "layersearch.search.api",
    "Run": "layersearch.search.api",
    "known": "layersearch.search.api",
    "load": "layersearch.search.api",
    "ray_tune": "layersearch.search.ray_tune",
    "read": "layersearch.search.reading",
    "swap": "layersearch.search.export.swap",
    "LayerSearchError": "layersearch.errors",
}

__all__ = ["Layer", "LayerSearchError", "Run", "__version__", "known", "load", "ray_tune", "read", "swap"]

if TYPE_CHECKING:
    from layersearch.errors import LayerSearchError
    from layersearch.search.api import Layer, Run, known, load
    from layersearch.search.export.swap import swap
    from layersearch.search.ray_tune import ray_tune
    from layersearch.search.reading import read


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'layersearch' has no attribute {name!r}")

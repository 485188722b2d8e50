"""What layers are made of: ops, graphs, canonical forms, formulas and lowerings; bases and the layers made of them.

Public names are resolved on first use, so that ``import layersearch.primitives`` does not load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {
    "BASES": "basis",
    "Basis": "basis",
    "BasisFunctions": "layers.functions",
    "GRKANLinear": "layers.rational",
    "GRKANMLP": "layers.rational",
    "GroupRational": "layers.rational",
    "KANConv1d": "layers.conv",
    "KANConv2d": "layers.conv",
    "KANLinear": "layers.linear",
    "KArAt": "layers.karat",
    "LearnableAttention": "layers.karat",
    "MixedKANConv2d": "layers.mixed",
    "MixedKANLinear": "layers.mixed",
    "RationalFit": "rational_fit",
    "SelectiveKANConv2d": "layers.selective",
    "SelectiveKANLinear": "layers.selective",
    "fit_rational": "rational_fit",
    "karat_stack": "layers.karat",
    "to_group_rational": "layers.convert",
}

__all__ = [
    "BASES",
    "GRKANMLP",
    "Basis",
    "BasisFunctions",
    "GRKANLinear",
    "GroupRational",
    "KANConv1d",
    "KANConv2d",
    "KANLinear",
    "KArAt",
    "LearnableAttention",
    "MixedKANConv2d",
    "MixedKANLinear",
    "RationalFit",
    "SelectiveKANConv2d",
    "SelectiveKANLinear",
    "fit_rational",
    "karat_stack",
    "to_group_rational",
]

if TYPE_CHECKING:
    from layersearch.primitives.basis import BASES, Basis
    from layersearch.primitives.layers.conv import KANConv1d, KANConv2d
    from layersearch.primitives.layers.convert import to_group_rational
    from layersearch.primitives.layers.functions import BasisFunctions
    from layersearch.primitives.layers.karat import KArAt, LearnableAttention, karat_stack
    from layersearch.primitives.layers.linear import KANLinear
    from layersearch.primitives.layers.mixed import MixedKANConv2d, MixedKANLinear
    from layersearch.primitives.layers.rational import GRKANMLP, GRKANLinear, GroupRational
    from layersearch.primitives.layers.selective import SelectiveKANConv2d, SelectiveKANLinear
    from layersearch.primitives.rational_fit import RationalFit, fit_rational


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"layersearch.primitives.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'layersearch.primitives' has no attribute {name!r}")

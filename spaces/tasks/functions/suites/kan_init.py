"""f1 … f5: the suite of arXiv:2509.03417 (initialisation of KANs), with its test grid of 200 × 200 points."""

import numpy as np

from layersearch.spaces.tasks.functions.function import FUNCTIONS, Columns, Floats, Function

__all__ = ["SOURCE"]

SOURCE = "KAN-Init suite, arXiv:2509.03417"
_SQUARE = ((-1.0, 1.0), (-1.0, 1.0))


def _f3(x: Floats, y: Floats) -> Floats:
    from scipy.special import i1, i1e

    value: Floats = i1(x) + np.exp(i1e(y)) + np.sin(x * y)
    return value


def _f4(x: Floats, y: Floats) -> Floats:
    from scipy.special import erfinv, fresnel

    s, c = fresnel(_f3(x, y) + erfinv(y))  # at y = ±1 both have limits
    value: Floats = s * c
    return value


def _f5(x: Floats, y: Floats) -> Floats:
    from scipy.special import erf

    value: Floats = y * np.sign(0.5 - x) + erf(x) * x * y  # the source's branch for xy > 1 is never met here
    return value


def _add(name: str, formula: str, of: Columns, kind: str) -> None:
    FUNCTIONS.add(name, Function(formula, _SQUARE, of, kind, SOURCE, test_grid=200))


_add("f1", "x*y", lambda x, y: x * y, "smooth")
_add("f2", "exp(sin(pi*x) + y**2)", lambda x, y: np.exp(np.sin(np.pi * x) + y**2), "smooth")
_add("f3", "I1(x) + exp(I1(y)*exp(-abs(y))) + sin(x*y)", _f3, "special functions")
_add("f4", "S(u)*C(u), u = f3(x, y) + erfinv(y), S and C Fresnel's integrals", _f4, "special functions, compositional")
_add("f5", "y*sign(0.5 - x) + erf(x)*x*y", _f5, "discontinuous")

"""Bessel polynomials."""

from dataclasses import dataclass

from layersearch.primitives.bases._growing import Growing
from layersearch.primitives.basis import BASES

__all__ = ["Bessel"]


@dataclass(frozen=True, kw_only=True)
class Bessel(Growing):
    """``y_n(x) / y_n(1)`` with ``y_{n+1} = (2n+1) x y_n + y_{n-1}``, ``y_1 = x + 1``; at most 1 on [-1, 1]."""

    name = "bessel"
    title = "Bessel polynomials"
    source = "Krall & Frink 1949; divided by y_n(1), which grows as (2n-1)!! (1, 2, 7, 37, 266, …)"

    def factors(self, n: int) -> tuple[int, int, int]:
        return (2 * n + 1, 0, 1) if n else (1, 1, 0)

    def latex(self, k: int) -> str:
        return rf"\frac{{y_{{{k}}}(x)}}{{y_{{{k}}}(1)}}"


BASES.add(Bessel.name, Bessel())

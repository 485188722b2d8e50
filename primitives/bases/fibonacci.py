"""Fibonacci polynomials."""

from dataclasses import dataclass

from layersearch.primitives.bases._growing import Growing
from layersearch.primitives.basis import BASES

__all__ = ["Fibonacci"]


@dataclass(frozen=True, kw_only=True)
class Fibonacci(Growing):
    """``F_{n+1}(x) / F_{n+1}(1)``, n = 0 … degree, with ``F_{n+1} = x F_n + F_{n-1}``, ``F_1 = 1``, ``F_2 = x``."""

    name = "fibonacci"
    title = "Fibonacci polynomials"
    source = "Hoggatt & Bicknell 1973; from F_1 on, since F_0 = 0 would be a dead coefficient; divided by F_n(1)"

    def factors(self, n: int) -> tuple[int, int, int]:
        return (1, 0, 1 if n else 0)

    def latex(self, k: int) -> str:
        return rf"\frac{{F_{{{k + 1}}}(x)}}{{F_{{{k + 1}}}(1)}}"


BASES.add(Fibonacci.name, Fibonacci())

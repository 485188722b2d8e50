"""The functions that an edge may turn out to be: one row each, ``a f(b x + c) + d``.

Every row says which of b and c are free, so that constants are unique: ``a (b x + c)² + d`` is ``a' (x + c')² + d``.
Only then can a planted constant be found again, and a formula be short.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from layersearch.primitives.registry import Registry

__all__ = ["CONSTANT", "FORMS", "Constants", "Form", "Inner"]

Inner: TypeAlias = Literal["", "c", "sign", "b", "bc"]
"""What is free inside: nothing, c (b = 1), c and the sign of b, b (c = 0), or both. With ``sign`` the argument keeps
its own sign over the data: the function has a pole or an end at 0."""

Constants: TypeAlias = tuple[float, float, float, float]
"""a, b, c, d."""

CONSTANT = "constant"
"""Name of the match of a curve that does not vary."""

_LARGEST_EXPONENT = 600.0
"""Up to it a constant inside an exponential is taken out as a factor; beyond, that would be 0 or infinite."""


@dataclass(frozen=True)
class Form:
    """One function of the library.

    Args:
        name: key in ``FORMS``.
        of: the function, elementwise, float64-clean.
        sympy: the same for an expression; sympy itself is the second argument.
        inner: which of b and c are free.
        complexity: what its name costs a reader; free constants inside cost 1 each besides (``cost``).
        canonical: the same function of x with unique constants.
        text: the function of a printed argument.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    sympy: Callable[[Any, Any], Any]
    inner: Inner
    complexity: int
    canonical: Callable[[float, float, float, float], Constants]
    text: Callable[[str], str]

    @property
    def cost(self) -> int:
        """Complexity with the free constants inside."""
        return self.complexity + {"": 0, "c": 1, "sign": 1, "b": 1, "bc": 2}[self.inner]


FORMS: Registry[Form] = Registry("form")
"""The library, by name."""


def _straight(a: float, b: float, c: float, d: float) -> Constants:
    return a * b, 1.0, 0.0, d + a * c


def _power(degree: float, parity: int = 0) -> Callable[[float, float, float, float], Constants]:
    """Of a function with f(k u) = k^degree f(u) for k > 0, and f(-u) = parity f(u) if that is not 0."""

    def canonical(a: float, b: float, c: float, d: float) -> Constants:
        if parity and b < 0:
            a, b, c = parity * a, -b, -c
        return a * abs(b) ** degree, math.copysign(1.0, b), c / abs(b), d

    return canonical


def _log(a: float, b: float, c: float, d: float) -> Constants:
    return a, math.copysign(1.0, b), c / abs(b), d + a * math.log(abs(b))


def _exp(a: float, b: float, c: float, d: float) -> Constants:
    return (a * math.exp(c), b, 0.0, d) if abs(c) <= _LARGEST_EXPONENT else (a, b, c, d)


def _as_given(a: float, b: float, c: float, d: float) -> Constants:
    return a, b, c, d


def _mirrored(parity: int) -> Callable[[float, float, float, float], Constants]:
    def canonical(a: float, b: float, c: float, d: float) -> Constants:
        return (parity * a, -b, -c, d) if b < 0 else (a, b, c, d)

    return canonical


def _sine(a: float, b: float, c: float, d: float) -> Constants:
    """b > 0 and c in (-π/2, π/2]."""
    a, b, c, d = _mirrored(-1)(a, b, c, d)
    turns = math.ceil(c / math.pi - 0.5)
    return a * (-1) ** turns, b, c - turns * math.pi, d


def _raised(exponent: int) -> Callable[[str], str]:
    return lambda u: f"({u})^{exponent}"


def _called(name: str) -> Callable[[str], str]:
    return lambda u: f"{name}({u})"


def _gaussian(u: Tensor) -> Tensor:
    return torch.exp(-u * u)


for _row in (
    Form("x", lambda u: u, lambda u, _: u, "", 1, _straight, lambda u: u),
    Form("x^2", torch.square, lambda u, _: u**2, "c", 2, _power(2, 1), _raised(2)),
    Form("x^3", lambda u: u**3, lambda u, _: u**3, "c", 3, _power(3, -1), _raised(3)),
    Form("x^4", lambda u: u**4, lambda u, _: u**4, "c", 3, _power(4, 1), _raised(4)),
    Form("1/x", torch.reciprocal, lambda u, _: 1 / u, "sign", 2, _power(-1, -1), lambda u: f"1/({u})"),
    Form("1/x^2", lambda u: u**-2, lambda u, _: u**-2, "sign", 3, _power(-2, 1), lambda u: f"1/({u})^2"),
    Form("sqrt", torch.sqrt, lambda u, s: s.sqrt(u), "sign", 2, _power(0.5), _called("sqrt")),
    Form("log", torch.log, lambda u, s: s.log(u), "sign", 2, _log, _called("log")),
    Form("exp", torch.exp, lambda u, s: s.exp(u), "b", 2, _exp, _called("exp")),
    Form("abs", torch.abs, lambda u, s: s.Abs(u), "c", 2, _power(1, 1), _called("abs")),
    Form("sin", torch.sin, lambda u, s: s.sin(u), "bc", 2, _sine, _called("sin")),
    Form("tanh", torch.tanh, lambda u, s: s.tanh(u), "bc", 2, _mirrored(-1), _called("tanh")),
    Form("arctan", torch.atan, lambda u, s: s.atan(u), "bc", 3, _mirrored(-1), _called("arctan")),
    Form("silu", lambda u: u * torch.sigmoid(u), lambda u, s: u / (1 + s.exp(-u)), "bc", 3, _as_given, _called("silu")),
    Form("gaussian", _gaussian, lambda u, s: s.exp(-(u**2)), "bc", 3, _mirrored(1), lambda u: f"exp(-({u})^2)"),
):
    FORMS.add(_row.name, _row)

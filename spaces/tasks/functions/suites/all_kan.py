"""allkan-01 … allkan-18: the targets of github.com/hoangthangta/All-KAN, on [0, 1]^d as there.

The source fits a uniform mesh and reports the error on that mesh; here points are drawn, and other points tested on.
Its functions 10 and 18 are only known to us by name and kind: their formulas are ours. Sums of fractals are cut where
the source cuts them, or where ours says.
"""

import numpy as np

from layersearch.spaces.tasks.functions.function import FUNCTIONS, Columns, Floats, Function

__all__ = ["SOURCE"]

SOURCE = "All-KAN, github.com/hoangthangta/All-KAN"


def _add(number: int, formula: str, dimension: int, of: Columns, kind: str, source: str = SOURCE) -> None:
    FUNCTIONS.add(f"allkan-{number:02d}", Function(formula, ((0.0, 1.0),) * dimension, of, kind, source))


def _distance(x: Floats) -> Floats:
    """To the nearest whole number."""
    whole: Floats = np.abs(x - np.round(x))
    return whole


def _weierstrass(x: Floats) -> Floats:
    return sum((0.5**n * np.cos(5.0**n * np.pi * x) for n in range(10)), np.zeros_like(x))


def _weierstrass_2d(x: Floats, y: Floats) -> Floats:
    terms = (0.5**n * np.cos(3.0**n * np.pi * x) * np.cos(3.0**n * np.pi * y) for n in range(5))
    return sum(terms, np.zeros_like(x))


def _takagi(x: Floats) -> Floats:
    return sum((_distance(2.0**n * x) / 2**n for n in range(20)), np.zeros_like(x))


def _cantor(x: Floats) -> Floats:
    """Digits of x in base 3 up to the first 1, halved, read in base 2."""
    value, rest, open_ = np.zeros_like(x), x.copy(), np.ones_like(x)
    for n in range(20):
        digit = np.minimum(np.floor(3 * rest), 2.0)
        value += open_ * np.minimum(digit, 1.0) / 2 ** (n + 1)
        open_ *= digit != 1
        rest = 3 * rest - digit
    return value


def _riemann(x: Floats) -> Floats:
    return sum((np.sin(n**2 * np.pi * x) / n**2 for n in range(1, 41)), np.zeros_like(x))


def _fbm(x: Floats, y: Floats) -> Floats:
    terms = (0.5**n * np.sin(2.0**n * np.pi * x) * np.cos(2.0**n * np.pi * y) for n in range(6))
    return sum(terms, np.zeros_like(x))


def _kiesswetter(x: Floats, y: Floats) -> Floats:
    terms = ((_distance(4.0**n * x) - 0.25) * (_distance(4.0**n * y) - 0.25) / 2**n for n in range(8))
    return sum(terms, np.zeros_like(x))


def _cycle(*x: Floats) -> Floats:
    terms = (np.sin(2 * np.pi * a * b) for a, b in zip(x, (*x[1:], x[0]), strict=True))
    return sum(terms, np.zeros_like(x[0]))


_add(1, "exp(-4*x**2)*sin(6*pi*x)", 1, lambda x: np.exp(-4 * x**2) * np.sin(6 * np.pi * x), "oscillating")
_add(2, "sin(4*pi*x**2)*cos(2*pi*x)", 1, lambda x: np.sin(4 * np.pi * x**2) * np.cos(2 * np.pi * x), "oscillating")
_add(3, "sin(3*pi*x**2)*cos(3*pi*y)", 2, lambda x, y: np.sin(3 * np.pi * x**2) * np.cos(3 * np.pi * y), "oscillating")
_add(
    4,
    "exp(-3*((x - .5)**2 + (y - .5)**2))*sin(4*pi*z + 10*(x - .5)*(y - .5))",
    3,
    lambda x, y, z: np.exp(-3 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)) * np.sin(4 * np.pi * z + 10 * (x - 0.5) * (y - 0.5)),
    "compositional",
)
_add(
    5,
    "sin(3*pi*(x1*x2 + x3))*cos(2*pi*x2*x4)",
    4,
    lambda x1, x2, x3, x4: np.sin(3 * np.pi * (x1 * x2 + x3)) * np.cos(2 * np.pi * x2 * x4),
    "compositional",
)
_add(
    6,
    "beta*(1 + alpha*cos(theta))",
    3,
    lambda beta, alpha, theta: beta * (1 + alpha * np.cos(theta)),
    "smooth",
    f"{SOURCE}; Feynman III.17.37",
)
_add(
    7,
    "m*(v**2 + u**2 + w**2)/2",
    4,
    lambda m, v, u, w: m * (v**2 + u**2 + w**2) / 2,
    "smooth",
    f"{SOURCE}; Feynman I.13.4",
)
_add(8, "sin(20*pi*x)*cos(18*pi*y)", 2, lambda x, y: np.sin(20 * np.pi * x) * np.cos(18 * np.pi * y), "oscillating")
_add(9, "tanh(50*(x - y + .5*z - .5))", 3, lambda x, y, z: np.tanh(50 * (x - y + 0.5 * z - 0.5)), "nearly a jump")
_add(
    10,
    "sum over the cycle of five variables of sin(2*pi*x_i*x_(i+1))",
    5,
    _cycle,
    "compositional",
    f"{SOURCE} has a cyclic coupling of five variables; formula ours",
)
_add(11, "sum n<10 of 0.5**n*cos(5**n*pi*x)", 1, _weierstrass, "fractal: Weierstrass")
_add(12, "sum n<5 of 0.5**n*cos(3**n*pi*x)*cos(3**n*pi*y)", 2, _weierstrass_2d, "fractal: Weierstrass")
_add(13, "sum n<20 of s(2**n*x)/2**n, s the distance to the nearest whole number", 1, _takagi, "fractal: Takagi")
_add(
    14,
    "sum n<20 of (s(2**n*x) + s(2**n*y))/2**n, s the distance to the nearest whole number",
    2,
    lambda x, y: _takagi(x) + _takagi(y),
    "fractal: Takagi",
)
_add(15, "Cantor's function, 20 digits", 1, _cantor, "fractal: Cantor")
_add(16, "sum n=1…40 of sin(n**2*pi*x)/n**2", 1, _riemann, "fractal: Riemann")
_add(17, "sum n<6 of 0.5**n*sin(2**n*pi*x)*cos(2**n*pi*y)", 2, _fbm, "fractal: like Brownian motion")
_add(
    18,
    "sum n<8 of (s(4**n*x) - .25)*(s(4**n*y) - .25)/2**n, s the distance to the nearest whole number",
    2,
    _kiesswetter,
    "fractal: Kiesswetter",
    f"{SOURCE} has a function after Kiesswetter; weights and cut ours",
)

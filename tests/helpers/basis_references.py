"""Every basis again, in numpy and scipy: ``reference(basis, x [N], state, input) -> [N, K]`` in float64."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, special

__all__ = ["REFERENCES", "Array"]

Array = NDArray[np.float64]
State = dict[str, Array]


def orders(function: Callable[[int, Any, Array], Array]) -> Callable[[Any, Array, State, int], Array]:
    """A family given by degree."""
    return lambda b, x, _state, _i: np.stack([function(n, b, x) for n in range(b.degree + 1)], axis=1)


def centred(profile: Callable[[Array], Array]) -> Callable[[Any, Array, State, int], Array]:
    """A family given by its mother function."""

    def reference(_b: Any, x: Array, state: State, i: int) -> Array:
        return profile((x[:, None] - state["centres"][:, i]) / np.exp(state["log_width"][:, i]))

    return reference


def gegenbauer(n: int, b: Any, x: Array) -> Array:
    return special.eval_gegenbauer(n, b.alpha, x) / special.eval_gegenbauer(n, b.alpha, 1.0)


def jacobi(n: int, b: Any, x: Array) -> Array:
    largest = special.binom(n + max(b.alpha, b.beta), n)
    return special.eval_jacobi(n, b.alpha, b.beta, x) / largest


def hermite(n: int, _b: Any, x: Array) -> Array:
    return special.eval_hermite(n, x) * np.exp(-(x**2) / 2) / math.sqrt(2.0**n * math.factorial(n) * math.sqrt(math.pi))


def laguerre(n: int, b: Any, x: Array) -> Array:
    return special.eval_genlaguerre(n, b.alpha, x) * np.exp(-x / 2) / special.binom(n + b.alpha, n)


def bessel(n: int, _b: Any, x: Array) -> Array:
    c = [math.factorial(n + k) / (math.factorial(n - k) * math.factorial(k) * 2**k) for k in range(n + 1)]
    return np.polynomial.polynomial.polyval(x, c) / sum(c)


def fibonacci(n: int, _b: Any, x: Array) -> Array:
    terms = [special.binom(n - k, k) * x ** (n - 2 * k) for k in range(n // 2 + 1)]
    return sum(terms) / sum(special.binom(n - k, k) for k in range(n // 2 + 1))


def lucas(n: int, _b: Any, x: Array) -> Array:
    root = np.sqrt(x * x + 4)
    at_one = ((1 + math.sqrt(5)) / 2) ** n + ((1 - math.sqrt(5)) / 2) ** n
    return (((x + root) / 2) ** n + ((x - root) / 2) ** n) / at_one


def gram(b: Any, x: Array, _state: State, _i: int) -> Array:
    points = (2 * np.arange(1, b.points + 1) - 1 - b.points) / b.points
    r = np.linalg.qr(np.polynomial.legendre.legvander(points, b.degree))[1]
    p = np.linalg.solve(r.T, np.polynomial.legendre.legvander(np.r_[x, 1.0], b.degree).T).T
    return p[:-1] / p[-1]


def fourier(b: Any, x: Array, _state: State, _i: int) -> Array:
    angle = b.frequency * x[:, None] * np.arange(1, b.grid + 1)
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def sine(b: Any, x: Array, state: State, i: int) -> Array:
    return np.sin(x[:, None] * np.arange(1, b.grid + 1) + state["phase"][:, i])


def meyer(z: Array) -> Array:
    t = 2 * np.abs(z) - 1
    step = np.where(t < 0, 0, t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3))
    return np.where(np.abs(z) < 1, np.sin(np.pi * z) * np.cos(np.pi / 2 * step), 0)


def shannon(z: Array) -> Array:
    safe = np.where(z == 0, 1, z)
    return np.where(z == 0, 1, (np.sin(2 * np.pi * safe) - np.sin(np.pi * safe)) / (np.pi * safe))


def bspline(b: Any, x: Array, _state: State, _i: int) -> Array:
    step = (b.high - b.low) / b.grid
    knots = b.low + step * np.arange(-b.order, b.grid + b.order + 1)
    eye = np.eye(b.grid + b.order)
    return np.asarray(interpolate.BSpline(knots, eye, b.order)(x))


def piecewise_linear(b: Any, x: Array, _state: State, _i: int) -> Array:
    points = np.linspace(b.low, b.high, b.grid + 1)
    return np.asarray(interpolate.make_interp_spline(points, np.eye(b.grid + 1), k=1)(x))


def relu(b: Any, x: Array, _state: State, _i: int) -> Array:
    step = (b.high - b.low) / b.grid
    s = b.low + step * np.arange(-b.order, b.grid)
    e = s + step * (b.order + 1)
    product = np.maximum(e - x[:, None], 0) * np.maximum(x[:, None] - s, 0)
    return product**2 * 16 / (e - s) ** 4


def rational(b: Any, x: Array, state: State, i: int) -> Array:
    under = np.r_[0.0, state["denominator"][i * b.groups // 3]]
    p, q = (np.polynomial.polynomial.polyval(x, c) for c in (state["numerator"], under))
    return (p / (1 + np.abs(q)))[:, None]


REFERENCES: dict[str, Callable[[Any, Array, State, int], Array]] = {
    "bessel": orders(bessel),
    "bspline": bspline,
    "chebyshev": orders(lambda n, _b, x: special.eval_chebyt(n, x)),
    "chebyshev2": orders(lambda n, _b, x: special.eval_chebyu(n, x) / (n + 1)),
    "dog": centred(lambda z: -z * np.exp(-(z**2) / 2)),
    "fibonacci": orders(fibonacci),
    "fourier": fourier,
    "gegenbauer": orders(gegenbauer),
    "gram": gram,
    "hermite": orders(hermite),
    "jacobi": orders(jacobi),
    "laguerre": orders(laguerre),
    "legendre": orders(lambda n, _b, x: special.eval_legendre(n, x)),
    "lucas": orders(lucas),
    "mexican_hat": centred(lambda z: 2 / (math.sqrt(3) * math.pi**0.25) * (1 - z**2) * np.exp(-(z**2) / 2)),
    "meyer": centred(meyer),
    "morlet": centred(lambda z: np.cos(5 * z) * np.exp(-(z**2) / 2)),
    "piecewise_linear": piecewise_linear,
    "rational": rational,
    "rbf": centred(lambda z: np.exp(-(z**2))),
    "relu": relu,
    "rswaf": centred(lambda z: 1 / np.cosh(z) ** 2),
    "shannon": centred(shannon),
    "sine": sine,
    "taylor": orders(lambda n, _b, x: x**n),
}

"""r1 … r7: seven targets of our choice, one for each thing that makes a function hard to fit."""

import numpy as np

from layersearch.spaces.tasks.functions.function import FUNCTIONS, Floats, Function

__all__: list[str] = []

_UNIT = ((0.0, 1.0), (0.0, 1.0))
_SQUARE = ((-1.0, 1.0), (-1.0, 1.0))


def _franke(x: Floats, y: Floats) -> Floats:
    x, y = 9 * x, 9 * y
    value: Floats = (
        0.75 * np.exp(-((x - 2) ** 2) / 4 - (y - 2) ** 2 / 4)
        + 0.75 * np.exp(-((x + 1) ** 2) / 49 - (y + 1) / 10)
        + 0.5 * np.exp(-((x - 7) ** 2) / 4 - (y - 3) ** 2 / 4)
        - 0.2 * np.exp(-((x - 4) ** 2) - (y - 7) ** 2)
    )
    return value


FUNCTIONS.add(
    "r1",
    Function(
        "0.75*exp(-(9*x - 2)**2/4 - (9*y - 2)**2/4) + 0.75*exp(-(9*x + 1)**2/49 - (9*y + 1)/10)"
        " + 0.5*exp(-(9*x - 7)**2/4 - (9*y - 3)**2/4) - 0.2*exp(-(9*x - 4)**2 - (9*y - 7)**2)",
        _UNIT,
        _franke,
        "smooth",
        "Franke 1979, A critical comparison of some methods for interpolation of scattered data",
    ),
)
FUNCTIONS.add(
    "r2",
    Function(
        "sin(4*pi*(x + x**2))*cos(3*pi*y)",
        _SQUARE,
        lambda x, y: np.sin(4 * np.pi * (x + x**2)) * np.cos(3 * np.pi * y),
        "oscillating",
        "ours: a chirp, from a standstill at x = -1/2 to six periods per unit at x = 1",
    ),
)
FUNCTIONS.add(
    "r3",
    Function(
        "sqrt(abs(x)) + 0.1/(0.1 + abs(x - y))",
        _SQUARE,
        lambda x, y: np.sqrt(np.abs(x)) + 0.1 / (0.1 + np.abs(x - y)),
        "singular",
        "ours: a cusp along an axis and a sharp ridge along the diagonal",
    ),
)
FUNCTIONS.add(
    "r4",
    Function(
        "sign(x**2 + y**2 - 0.5) + 0.5*sign(x - 0.3)*y",
        _SQUARE,
        lambda x, y: np.sign(x**2 + y**2 - 0.5) + 0.5 * np.sign(x - 0.3) * y,
        "discontinuous",
        "ours: a jump along a circle, which no sum of univariate functions has, and one along a line",
    ),
)
FUNCTIONS.add(
    "r5",
    Function(
        "sin(pi*x)*cos(pi*y/2) + 0.5*x*y",
        _SQUARE,
        lambda x, y: np.sin(np.pi * x) * np.cos(np.pi * y / 2) + 0.5 * x * y,
        "noisy",
        "ours: a signal of standard deviation 0.53 under normal noise of 0.2",
        noise=0.2,
    ),
)
FUNCTIONS.add(
    "r6",
    Function(
        "10*sin(pi*x1*x2) + 20*(x3 - 0.5)**2 + 10*x4 + 5*x5, and five more variables without effect",
        ((0.0, 1.0),) * 10,
        lambda x1, x2, x3, x4, x5, *_: 10 * np.sin(np.pi * x1 * x2) + 20 * (x3 - 0.5) ** 2 + 10 * x4 + 5 * x5,
        "high-dimensional",
        "Friedman 1991, Multivariate adaptive regression splines, without its noise",
    ),
)
FUNCTIONS.add(
    "r7",
    Function(
        "exp((sin(pi*(x1**2 + x2**2)) + sin(pi*(x3**2 + x4**2)))/2)",
        ((-1.0, 1.0),) * 4,
        lambda x1, x2, x3, x4: np.exp((np.sin(np.pi * (x1**2 + x2**2)) + np.sin(np.pi * (x3**2 + x4**2))) / 2),
        "compositional",
        "Liu et al. 2024, KAN: Kolmogorov-Arnold networks, arXiv:2404.19756",
    ),
)

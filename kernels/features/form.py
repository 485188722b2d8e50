"""What kernels of feature families are given: four forms of a family, as plain data."""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["CONSTANT", "Curve", "Features", "Form", "Harmonics", "Pieces", "Profiles", "Recurrence"]


@dataclass(frozen=True)
class Curve:
    """A function of a number ``z`` and its slope: assignments ``name = formula`` that end with ``y`` and ``slope``.

    Formulas hold + - * /, numbers, names assigned before and the instructions of ``formula.INSTRUCTIONS``.
    """

    lines: tuple[str, ...]


CONSTANT = Curve(("y = 1.0", "slope = 0.0"))


@dataclass(frozen=True)
class Recurrence:
    """``f_0 = start(x)``, ``f_{n+1} = (a_n x + b_n) f_n + c_n f_{n-1}``, ``f_{-1} = 0``.

    Tensors: ``[3, K - 1]``: a, b, c; gradients on request.
    """

    start: Curve = CONSTANT


@dataclass(frozen=True)
class Profiles:
    """``f_k(x_i) = curve((x_i - centre_ki) scale_ki)``. Tensors: centre, scale, each ``[K, I]``; gradients on request.

    ``shifted``: ``curve(x_i scale_ki + centre_ki)`` instead, for functions without a place.
    """

    curve: Curve
    shifted: bool = False


@dataclass(frozen=True)
class Pieces:
    """Piecewise polynomials: ``t = (x_i - low_i) / step_i``, its floor ``left``, each within its limits.

    Numbers: least and greatest ``t``, least and greatest ``left``. With ``f = t - left``, function ``left + m`` is
    ``sum_j table[m][j] f^j``; all others are 0. Tensors: low, step, each ``[I]``.
    """

    table: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Harmonics:
    """``cos(m ω x)``, m = 1 … K / 2, then ``sin(m ω x)``, by rotation. Numbers: ω. No tensors."""


Form: TypeAlias = Recurrence | Profiles | Pieces | Harmonics


@dataclass(frozen=True)
class Features:
    """``count`` functions K of a form; arguments are clamped to ``reach``, beyond which slopes are 0.

    The form alone is compiled in: kernels serve any count, reach and ``numbers``.
    """

    form: Form
    count: int
    reach: tuple[float, float]
    numbers: tuple[float, ...] = ()

    @property
    def n_tensors(self) -> int:
        return {Recurrence: 1, Profiles: 2, Pieces: 2, Harmonics: 0}[type(self.form)]

    @property
    def differentiable(self) -> bool:
        """Whether gradients of the tensors can be had."""
        return isinstance(self.form, Recurrence | Profiles)

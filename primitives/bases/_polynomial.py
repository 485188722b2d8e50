"""Polynomials by a three-term recurrence, scaled so that the values stay of the order of one."""

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from layersearch.kernels.features.form import CONSTANT, Curve, Features, Recurrence
from layersearch.primitives.basis import Basis, State, number, setting
from layersearch.primitives.traced import constant

__all__ = ["Polynomial", "Step", "printed"]


class Step(NamedTuple):
    """``p_{n+1} = (a x + b) p_n + c p_{n-1}``."""

    a: float | Tensor
    b: float | Tensor
    c: float | Tensor


def printed(coefficients: list[float]) -> str:
    """``c_0 + c_1 x + …`` as an expression in ``x``, without the terms that vanish."""
    terms = []
    for power, c in enumerate(coefficients):
        if c != 0 or len(coefficients) == 1:
            terms.append([number(c), f"{number(c)}*x", f"{number(c)}*x**{power}"][min(power, 2)])
    return " + ".join(terms) or "0"


@dataclass(frozen=True, kw_only=True)
class Polynomial(Basis):
    """``p_0 … p_degree`` on [-1, 1] from ``p_{-1} = 0``, ``p_0 = 1``.

    Recurrences, not cos(n acos x): that form has an infinite gradient where tanh rounds to ±1 (from |x| = 3.5 in
    bfloat16). Outside [-1, 1] the argument is clamped, since a polynomial of degree 8 leaves float32 at |x| = 6e4.
    """

    knob = "degree"
    kernel = "recurrence"
    curve: ClassVar[Curve] = CONSTANT
    """``weight`` for kernels."""

    degree: int = setting(4, low=1, high=32, about="highest degree")

    @abstractmethod
    def step(self, n: int, state: State) -> Step:
        """From degree ``n`` to ``n + 1``; ``c`` is 0 for n = 0."""

    @property
    def n_functions(self) -> int:
        return self.degree + 1

    @property
    def flops(self) -> float:
        return 4.0 * self.degree

    @property
    def reach(self) -> tuple[float, float]:
        return self.interval

    def weight(self, x: Tensor) -> Tensor:
        """Function of order 0, by which all others are multiplied."""
        return torch.ones_like(x)

    def _columns(self, x: Tensor, state: State) -> Tensor:
        last: Tensor | None = None
        now = self.weight(x)
        out = [now]
        for n in range(self.degree):
            a, b, c = self.step(n, state)
            factor = a * x if isinstance(b, float) and b == 0 else a * x + b
            following = factor * now if last is None else factor * now + c * last
            last, now = now, following
            out.append(now)
        return torch.stack(out, dim=-2)

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        features = Features(Recurrence(self.curve), self.n_functions, self.reach)
        if not state:
            return features, [_fixed(self, device)]
        steps = [self.step(n, state) for n in range(self.degree)]
        like = next(iter(state.values()))
        flat = [v if isinstance(v, Tensor) else like.new_tensor(v) for row in zip(*steps, strict=True) for v in row]
        return features, [torch.stack(flat).view(3, -1)]

    def coefficients(self, k: int, state: State) -> list[float]:
        """Coefficients of ``p_k`` divided by ``weight``, lowest power first."""
        last, now = [0.0], [1.0]
        for n in range(k):
            a, b, c = (v.item() if isinstance(v, Tensor) else v for v in self.step(n, state))
            following = [0.0] * (n + 2)
            for power, value in enumerate(now):
                following[power + 1] += a * value
                following[power] += b * value
            for power, value in enumerate(last):
                following[power] += c * value
            last, now = now, following
        return now

    def text(self, k: int, state: State, i: int = 0) -> str:
        return printed(self.coefficients(k, state))


@constant
def _fixed(basis: Polynomial, device: torch.device) -> Tensor:
    return _kept(basis, device)


@functools.lru_cache(maxsize=256)
def _kept(basis: Polynomial, device: torch.device) -> Tensor:
    """The numbers of the recurrence, ``[3, degree]`` in float32: a, b, c. Kept: a copy to a GPU would be waited for."""
    with torch.inference_mode(False):  # a first pass may be one of inference, and training is to keep the same tensor
        steps = [basis.step(n, {}) for n in range(basis.degree)]
        return torch.tensor(steps, dtype=torch.float32, device="cpu").t().contiguous().to(device)

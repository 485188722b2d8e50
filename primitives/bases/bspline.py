"""B-splines of any order."""

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from layersearch.kernels.features.form import Features, Pieces
from layersearch.primitives.bases._gridded import Gridded
from layersearch.primitives.basis import BASES, State, number, setting, spread
from layersearch.primitives.traced import constant

__all__ = ["BSpline"]


def _cubic(f: Tensor) -> list[Tensor]:
    """The four pieces of the uniform cubic spline at ``f`` in [0, 1], by ascending spline."""
    g = 1 - f
    f2 = f * f
    f3 = f2 * f
    return [g * g * g / 6, 0.5 * f3 - f2 + 2 / 3, 0.5 * (f + f2 - f3) + 1 / 6, f3 / 6]


def _uniform(f: Tensor, order: int) -> list[Tensor]:
    """The ``order + 1`` pieces of the uniform spline at ``f``: ``p β_p(t) = t β_{p-1}(t) + (p+1-t) β_{p-1}(t-1)``."""
    pieces = [torch.ones_like(f)]
    for p in range(1, order + 1):
        inner = [((m + f) * pieces[m] + (p + 1 - m - f) * pieces[m - 1]) / p for m in range(1, p)]
        pieces = [f * pieces[0] / p, *inner, (1 - f) * pieces[p - 1] / p]
    return pieces[::-1]


@constant
def _table(order: int) -> tuple[tuple[float, ...], ...]:
    """Coefficients of ``_uniform``'s pieces by powers of ``f``, from the same recursion in rational numbers."""
    return _kept(order)


@functools.cache
def _kept(order: int) -> tuple[tuple[float, ...], ...]:
    pieces: list[list[Fraction]] = [[Fraction(1)]]

    def times(a: Fraction, b: Fraction, p: list[Fraction]) -> list[Fraction]:
        """``(a + b f) p(f)``."""
        return [a * low + b * high for low, high in zip([*p, Fraction(0)], [Fraction(0), *p], strict=True)]

    def plus(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
        return [a + b for a, b in zip(p, q, strict=True)]

    one = Fraction(1)
    for p in range(1, order + 1):
        inner = [
            plus(times(Fraction(m), one, pieces[m]), times(Fraction(p + 1 - m), -one, pieces[m - 1]))
            for m in range(1, p)
        ]
        ends = times(Fraction(0), one, pieces[0]), times(one, -one, pieces[p - 1])
        pieces = [[c / p for c in row] for row in (ends[0], *inner, ends[1])]
    return tuple(tuple(float(c) for c in row) for row in reversed(pieces))


def _recursion(x: Tensor, knots: Tensor, order: int) -> Tensor:
    """Cox–de Boor recursion, ``x`` ``[..., 1, I]``, ``knots`` ``[T, I]`` to ``[..., T - 1 - order, I]``."""
    basis = ((x >= knots[:-1]) & (x < knots[1:])).to(x.dtype)
    for p in range(1, order + 1):
        rise = (x - knots[: -p - 1]) / (knots[p:-1] - knots[: -p - 1])
        fall = (knots[p + 1 :] - x) / (knots[p + 1 :] - knots[1:-p])
        basis = rise * basis[..., :-1, :] + fall * basis[..., 1:, :]
    return basis


@dataclass(frozen=True, kw_only=True)
class BSpline(Gridded):
    """The ``G + k`` B-splines of order ``k`` on ``G`` intervals, with ``k`` more knots on each side.

    They are non-negative and sum to 1 on the grid, its right end included; outside they fall to 0 over ``k`` further
    steps, so that far from the grid only the base branch of a layer is left: move the grid, or map the inputs.

    A uniform grid (state ``low``, ``step``, each ``[I]``) has only ``k + 1`` splines at a point that are not 0: they
    are computed in closed form and put in place, at a cost that does not depend on ``G``. Otherwise (state ``knots``
    ``[G + 2k + 1, I]``, set from the quantiles of data) the Cox–de Boor recursion is used.
    """

    name = "bspline"
    title = "B-splines"
    source = "de Boor, A Practical Guide to Splines, ch. IX; as a KAN: arXiv:2404.19756"

    kernel = "pieces"

    grid: int = setting(5, low=1, high=512, about="number of intervals G")
    order: int = setting(3, low=1, high=8, about="polynomial order k")
    uniform: bool = setting(True, about="equal steps; otherwise the grid follows the quantiles of the data")
    even: float = setting(0.02, low=0, high=1, about="part of an equal grid mixed into the quantiles")

    @property
    def n_functions(self) -> int:
        return self.grid + self.order

    @property
    def flops(self) -> float:
        if self.uniform:
            return 18.0 if self.order == 3 else 3.0 + 2.5 * self.order * (self.order + 1)
        return 8.0 * self.order * (self.grid + self.order)

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        start, end = self.ends(in_features, low, high)
        if self.uniform:
            return {"low": start, "step": (end - start) / self.grid}
        return {"knots": self._extended(spread(start, end, self.grid + 1))}

    def _extended(self, inner: Tensor) -> Tensor:
        """``k`` more knots on each side of ``inner`` ``[G + 1, I]``, at the mean step."""
        step = (inner[-1] - inner[0]) / self.grid
        out = torch.arange(1.0, self.order + 1, dtype=inner.dtype, device=inner.device).unsqueeze(-1) * step
        return torch.cat([inner[0] - out.flip(0), inner, inner[-1] + out])

    def placed(self, x: Tensor, margin: float = 0.01) -> dict[str, Tensor]:
        fresh = super().placed(x, margin)
        if self.uniform:
            return fresh
        low, high = self.span(fresh)
        at = torch.linspace(0, 1, self.grid + 1, dtype=torch.float64)
        quantiles = x.detach().double().cpu().quantile(at, dim=0)
        inner = self.even * spread(low, high, self.grid + 1) + (1 - self.even) * quantiles
        inner[0], inner[-1] = low, high
        # Repeated values would give steps of 0: every step is at least a tenth of the share of ``even`` in it.
        least = (high - low) * max(self.even, 1e-3) / (10 * self.grid)
        steps = inner.diff(dim=0).clamp_min(0) + least
        inner = low + torch.cat([torch.zeros_like(low)[None], steps.cumsum(0)]) * ((high - low) / steps.sum(0))
        return {"knots": self._extended(inner)}

    def refined(self, coarse: "BSpline", state: State) -> dict[str, Tensor]:
        if self.uniform:
            return super().refined(coarse, state)
        inner = state["knots"].detach().double().cpu()[coarse.order : coarse.order + coarse.grid + 1]
        at = torch.linspace(0, coarse.grid, self.grid + 1, dtype=torch.float64)
        left = at.floor().long().clamp_max(coarse.grid - 1)
        return {"knots": self._extended(torch.lerp(inner[left], inner[left + 1], (at - left).unsqueeze(-1)))}

    def span(self, state: State) -> tuple[Tensor, Tensor]:
        if self.uniform:
            return state["low"], state["low"] + state["step"] * self.grid
        return state["knots"][self.order], state["knots"][self.order + self.grid]

    def _columns(self, x: Tensor, state: State) -> Tensor:
        if not self.uniform:
            return _recursion(x.unsqueeze(-2), state["knots"], self.order)
        k = self.order
        t = ((x - state["low"]) / state["step"]).clamp(-k, self.grid + k)
        left = t.detach().floor()
        f = t - left
        pieces = torch.stack(_cubic(f) if k == 3 else _uniform(f, k), dim=-2)
        place = left.nan_to_num().long().unsqueeze(-2) + torch.arange(k, 2 * k + 1, device=x.device).unsqueeze(-1)
        # Scatter: 4.9 ms against 10.9 ms for all splines in closed form (G = 5, forward and backward, one CPU thread,
        # 1024 x 64), 7.7 against 30.6 at G = 20. The rows before and after take the splines that are not ours.
        zeros = (left - left).unsqueeze(-2)  # or NaN: an index can be none
        padded = zeros.expand(*x.shape[:-1], self.n_functions + 2 * k + 1, x.shape[-1])
        return padded.scatter(-2, place, pieces).narrow(-2, k, self.n_functions)

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        if not self.uniform:
            return None
        ends = (-float(self.order), float(self.grid + self.order))
        features = Features(Pieces(_table(self.order)), self.n_functions, self.reach, (*ends, *ends))
        return features, [state["low"], state["step"]]

    def text(self, k: int, state: State, i: int = 0) -> str:
        order = self.order
        if self.uniform:
            low, step = float(state["low"][i]), float(state["step"][i])
            knots = [low + step * (k - order + j) for j in range(order + 2)]
        else:
            knots = [float(t) for t in state["knots"][k : k + order + 2, i]]
        terms = []
        for j, t in enumerate(knots):
            weight = (knots[-1] - knots[0]) / math.prod(other - t for m, other in enumerate(knots) if m != j)
            terms.append(f"{number(weight * (-1) ** (order + 1))}*max(0, {number(t)} - x)**{order}")
        return " + ".join(terms)

    def latex(self, k: int) -> str:
        return f"B_{{{k},{self.order}}}(x)"


BASES.add(BSpline.name, BSpline())

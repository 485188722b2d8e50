"""Jacobi polynomials with exponents that may be learned."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.kernels.features.form import Features, Recurrence
from layersearch.primitives.bases._polynomial import Polynomial, Step
from layersearch.primitives.basis import BASES, State, setting

__all__ = ["Jacobi"]


@dataclass(frozen=True, kw_only=True)
class Jacobi(Polynomial):
    """``P_n^{(α,β)}(x) / M_n``, ``M_n = (max(α,β) + 1)_n / n!``, the largest value on [-1, 1].

    Orthogonal there under (1-x)^α (1+x)^β. State ``exponents`` ``[2]`` holds ρ with α, β = softplus(ρ) - 1/2, so that
    they stay above -1/2, where the maximum lies at an end and M_n is it; they are trained with the layer.
    """

    name = "jacobi"
    title = "Jacobi polynomials"
    source = (
        "Abramowitz & Stegun 22.7.1; as a KAN: SpaceLearner/JacobiKAN (α = β = 1 fixed). Ours are learned and scaled"
    )

    alpha: float = setting(1.0, low=-0.45, high=20, about="initial α")
    beta: float = setting(1.0, low=-0.45, high=20, about="initial β")
    learn: bool = setting(True, about="train α and β")

    @property
    def learned(self) -> tuple[str, ...]:
        return ("exponents",) if self.learn else ()

    def state(self, in_features: int, low: Tensor | None = None, high: Tensor | None = None) -> dict[str, Tensor]:
        raw = [math.log(math.expm1(value + 0.5)) for value in (self.alpha, self.beta)]
        return {"exponents": torch.tensor(raw, dtype=torch.float64)}

    def step(self, n: int, state: State) -> Step:
        a, b, c = self._steps(state)
        return Step(a[n], b[n], c[n])

    def _steps(self, state: State) -> Tensor:
        """``[3, degree]``: a, b, c from every degree to the next."""
        a, b = torch.nn.functional.softplus(state["exponents"]).sub(0.5).unbind()
        most = torch.maximum(a, b)
        n = torch.arange(1, self.degree, dtype=a.dtype, device=a.device)
        shrink = (n + 1) / (most + (n + 1))
        s = 2 * n + a + b
        scale = shrink / (2 * (n + 1) * (n + a + b + 1) * s)
        slope = (s + 1) * (s + 2) * s * scale
        shift = (s + 1) * (a + b) * (a - b) * scale
        back = -2 * (n + a) * (n + b) * (s + 2) * scale * n / (most + n)
        # At n = 0 the general form is 0 / 0 for α + β = 0.
        first = torch.stack([(a + b + 2) / 2, (a - b) / 2, 0 * a]) / (most + 1)
        return torch.cat([first.unsqueeze(1), torch.stack([slope, shift, back])], dim=1)

    def fused(self, state: State, device: torch.device) -> tuple[Features, list[Tensor]] | None:
        return Features(Recurrence(), self.n_functions, self.reach), [self._steps(state)]

    @property
    def flops(self) -> float:
        """Five per degree, seven if exponents are learned: gradients of a, b and c are sums over all inputs.

        With them a training passes over the data a third more often (degree 8: 18.6 against 13.9 times per degree).
        """
        return (7.0 if self.learn else 5.0) * self.degree

    def latex(self, k: int) -> str:
        return rf"\frac{{P_{{{k}}}^{{(\alpha,\beta)}}(x)}}{{M_{{{k}}}}}"


BASES.add(Jacobi.name, Jacobi())

"""Identities of single bases: partition of unity, orthogonality, means, reproduction."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from layersearch.primitives import BASES, BasisFunctions
from layersearch.primitives.basis import Basis


def values(basis: Basis, x: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``[N, K]`` of one input."""
    return basis.evaluate(torch.as_tensor(x, dtype=torch.float64).unsqueeze(-1), basis.state(1))[:, 0].numpy()


QUADRATURE = {
    "chebyshev": lambda b: special.roots_chebyt(20),
    "chebyshev2": lambda b: special.roots_chebyu(20),
    "fourier": lambda b: (np.arange(64) * np.pi / 32 - np.pi, np.full(64, 1 / 64)),
    "gegenbauer": lambda b: special.roots_gegenbauer(20, b.alpha),
    "gram": lambda b: ((2 * np.arange(1, b.points + 1) - 1 - b.points) / b.points, np.ones(b.points)),
    "hermite": lambda b: hermite_rule(),
    "jacobi": lambda b: special.roots_jacobi(20, b.alpha, b.beta),
    "laguerre": lambda b: laguerre_rule(b.alpha),
    "legendre": lambda b: special.roots_legendre(20),
}


def hermite_rule() -> tuple[Any, Any]:
    x, w = special.roots_hermite(20)
    return x, w * np.exp(x**2)


def laguerre_rule(alpha: float) -> tuple[Any, Any]:
    x, w = special.roots_genlaguerre(20, alpha)
    return x, w * np.exp(x)


@pytest.mark.parametrize("name", list(QUADRATURE))
def test_orthogonal_under_the_weight_it_names(name: str) -> None:
    for settings in ({}, {"alpha": 1.3} if name in ("gegenbauer", "jacobi", "laguerre") else {}):
        basis = BASES[name].configure(**settings)
        x, w = QUADRATURE[name](basis)
        f = values(basis, x)
        gram = f.T @ (w[:, None] * f)
        norms = np.sqrt(np.diag(gram))
        np.testing.assert_allclose(gram / np.outer(norms, norms), np.eye(basis.n_functions), atol=1e-12)
        if name == "hermite":
            np.testing.assert_allclose(norms, 1, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("uniform", [True, False])
def test_bsplines_are_positive_and_sum_to_one_on_the_closed_grid(order: int, uniform: bool) -> None:
    basis = BASES["bspline"].configure(order=order, uniform=uniform, grid=6, low=-2.0, high=1.0)
    f = values(basis, np.linspace(-2, 1, 301))
    assert (f >= -1e-15).all()
    np.testing.assert_allclose(f.sum(1), 1, rtol=1e-12)
    assert values(basis, [-2 - 0.5 * order - 1e-9, 1 + 0.5 * order, 1e6, -1e6]).max() < 1e-12


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_fast_bsplines_are_those_of_the_recursion_also_outside_the_grid(order: int) -> None:
    x = np.linspace(-5, 5, 997)
    fast, slow = (values(BASES["bspline"].configure(order=order, uniform=u), x) for u in (True, False))
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_a_grid_of_quantiles_follows_the_data_and_still_sums_to_one() -> None:
    basis = BASES["bspline"].configure(uniform=False, grid=8)
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1] = x[:, 1].round()  # repeated values must not give empty intervals
    state = basis.placed(x)
    steps = state["knots"].diff(dim=0)
    assert bool((steps > 0).all())
    inner = steps[3:-3, 0]
    assert inner[3:5].max() < 0.5 * inner[[0, -1]].min()
    torch.testing.assert_close(basis.evaluate(x, state).sum(-1), torch.ones_like(x))


def test_hats_sum_to_one_and_reproduce_lines_on_the_whole_line() -> None:
    basis = BASES["piecewise_linear"].configure(grid=6)
    x = np.array([-1e3, -2.0, -1.0, -0.3, 0.0, 0.99, 1.0, 5.0, 1e4])
    f = values(basis, x)
    np.testing.assert_allclose(f.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(f @ np.linspace(-1, 1, 7), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "mean"), [("dog", 1e-12), ("mexican_hat", 1e-12), ("meyer", 1e-12), ("morlet", 2e-5)])
def test_wavelets_have_no_mean(name: str, mean: float) -> None:
    z = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    profile: Tensor = BASES[name].profile(z)  # type: ignore[attr-defined]
    assert abs(float(profile.sum()) * 0.005) < mean


def test_integer_shifts_of_the_shannon_wavelet_are_orthonormal() -> None:
    z = torch.arange(-4000, 4000, 0.125, dtype=torch.float64)
    f = torch.stack([BASES["shannon"].profile(z - n) for n in range(4)])  # type: ignore[attr-defined]
    torch.testing.assert_close(f @ f.T * 0.125, torch.eye(4, dtype=torch.float64), atol=1e-3, rtol=0)


def test_relu_bumps_lie_where_the_splines_lie_and_have_height_one() -> None:
    relu, spline = BASES["relu"].configure(grid=6), BASES["bspline"].configure(grid=6)
    x = np.linspace(-1, 1, 1201)
    assert ((values(relu, x) > 0) == (values(spline, x) > 0)).all()
    np.testing.assert_allclose(values(relu, x)[:, 3:-3].max(0), 1, rtol=1e-4)


def test_special_cases_of_the_families_agree() -> None:
    x = np.linspace(-1, 1, 11)
    legendre = values(BASES["legendre"], x)
    np.testing.assert_allclose(values(BASES["gegenbauer"].configure(alpha=0.5), x), legendre, atol=1e-12)
    np.testing.assert_allclose(values(BASES["jacobi"].configure(alpha=0.0, beta=0.0), x), legendre, atol=1e-12)
    np.testing.assert_allclose(
        values(BASES["gegenbauer"].configure(alpha=1.0), x), values(BASES["chebyshev2"], x), atol=1e-12
    )


@pytest.mark.parametrize("degree", [8, 16])
def test_chebyshev_in_bfloat16_has_no_nan_where_the_arc_cosine_has(degree: int) -> None:
    functions = BasisFunctions("chebyshev", 1, degree=degree, dtype=torch.bfloat16)
    x = torch.linspace(-20, 20, 401, dtype=torch.bfloat16).unsqueeze(-1).requires_grad_()
    (gradient,) = torch.autograd.grad(functions(x).float().sum(), x)
    assert bool(gradient.isfinite().all())
    u = torch.tanh(x.detach()).requires_grad_()
    (published,) = torch.autograd.grad(torch.cos(degree * torch.acos(u)).float().sum(), u)
    assert not bool(published.isfinite().all())


def test_rotation_keeps_many_harmonics_accurate_in_float32() -> None:
    x = torch.linspace(-3.2, 3.2, 801).unsqueeze(-1)
    basis = BASES["fourier"].configure(grid=64)
    assert float((basis.evaluate(x, {}) - basis.evaluate(x.double(), {})).abs().max()) < 1e-5


class _Passes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the elements that operators go over: of the largest tensor that each reads or writes."""

    n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.n += max((t.numel() for t in (*args, found) if isinstance(t, Tensor)), default=0)
        return found


@pytest.mark.parametrize("degree", [4, 8])
def test_what_learning_the_exponents_of_jacobi_costs_is_counted(degree: int) -> None:
    def passes(basis: Basis) -> int:
        state = {name: value.float().requires_grad_(basis.learned != ()) for name, value in basis.state(4).items()}
        x = torch.linspace(-0.9, 0.9, 4000).view(1000, 4).requires_grad_()
        with _Passes() as counted:
            y = basis.columns(x, state, lowering="torch")
            torch.autograd.grad(y.sum(), [x, *(value for value in state.values() if value.requires_grad)])
        return counted.n

    learned, fixed = (BASES["jacobi"].configure(degree=degree, learn=learn) for learn in (True, False))
    assert learned.flops / fixed.flops == pytest.approx(passes(learned) / passes(fixed), rel=0.1)

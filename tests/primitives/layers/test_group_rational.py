"""Group rationals start as what they are named after, and the shipped coefficients are those of the procedure."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layersearch.errors import BadInputError, UnknownNameError
from layersearch.primitives import GRKANMLP, GRKANLinear, GroupRational, fit_rational
from layersearch.primitives.activations import ACTIVATIONS
from layersearch.primitives.layers.rational import variance_gain
from layersearch.primitives.rational_fit import DEGREES, WINDOWS, shipped_fit

# Largest difference from the target on the window of the fit, by degree of the numerator, rounded up. Fixed here, not
# read from the fits: a kink (relu) or two different ends (gelu) set what a Padé function of this size can do.
CEILINGS = {
    "elu": (0.22, 0.03, 0.006, 0.0015),
    "gelu": (0.2, 0.004, 0.005, 1e-4),
    "identity": (0, 0, 0, 0),
    "leaky_relu": (0.17, 0.05, 0.017, 0.007),
    "mish": (0.21, 0.018, 0.0035, 7e-4),
    "relu": (0.18, 0.05, 0.017, 0.007),
    "sigmoid": (0.005, 2e-5, 1e-8, 1e-7),
    "silu": (0.15, 0.0013, 2e-6, 1e-8),
    "softplus": (0.07, 0.0012, 3e-5, 1e-6),
    "tanh": (0.05, 0.001, 1e-5, 1e-7),
}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_it_starts_as_the_activation_it_is_named_after(name: str) -> None:
    window = WINDOWS[name]
    x = torch.linspace(-window, window, 4001, dtype=torch.float64).unsqueeze(-1)
    for degree, ceiling in zip(DEGREES, CEILINGS[name], strict=True):
        rational = GroupRational(1, 1, name, degree=degree, dtype=torch.float64)
        assert float((rational(x) - ACTIVATIONS[name](x)).abs().max().detach()) <= ceiling
        single = GroupRational(1, 1, name, degree=degree)
        torch.testing.assert_close(single(x.float()).double(), rational(x), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_both_published_denominators_are_the_same_function_at_the_start(name: str) -> None:
    for degree in DEGREES:
        b = np.array(shipped_fit(name, degree).denominator)
        assert (b >= 0).all()
        assert not b[::2].any()


def same_function(name: str, degree: int) -> None:
    shipped = shipped_fit(name, degree)
    fitted = fit_rational(ACTIVATIONS[name], degree, -WINDOWS[name], WINDOWS[name])
    assert fitted.max_error == pytest.approx(shipped.max_error, rel=0.02, abs=2e-8)
    x = torch.linspace(-WINDOWS[name], WINDOWS[name], 501, dtype=torch.float64).unsqueeze(-1)
    first, second = (GroupRational(1, 1, fit, dtype=torch.float64)(x) for fit in (shipped, fitted))
    torch.testing.assert_close(first, second, rtol=0, atol=0.02 * shipped.max_error + 1e-8)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_the_shipped_fits_are_those_of_the_procedure(name: str) -> None:
    same_function(name, 3)


@pytest.mark.slow
@pytest.mark.parametrize("degree", DEGREES[1:])
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_the_larger_shipped_fits_are_those_of_the_procedure(name: str, degree: int) -> None:
    same_function(name, degree)


def test_each_group_has_a_denominator_and_all_share_the_numerator() -> None:
    rational = GroupRational(6, 3, "gelu", dtype=torch.float64)
    assert rational.numerator.shape == (6,)
    assert rational.denominator.shape == (3, 4)
    with torch.no_grad():
        rational.denominator.copy_(torch.tensor([[1.0, -2, 0.5, 0.1], [0, 0, 0, 0], [0.3, 0, -0.2, 0]]))
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for channel in range(6):
        u = x[:, channel].numpy()
        p = np.polynomial.polynomial.polyval(u, rational.numerator.detach().numpy())
        q = np.polynomial.polynomial.polyval(u, np.r_[0.0, rational.denominator[channel // 2].detach().numpy()])
        np.testing.assert_allclose(rational(x)[:, channel].detach().numpy(), p / (1 + np.abs(q)), rtol=1e-12)


def test_gradients_of_input_and_coefficients() -> None:
    rational = GroupRational(4, 2, "silu", dtype=torch.float64)
    with torch.no_grad():
        rational.denominator.add_(torch.tensor([[0.1, 0.2, -0.3, 0.4], [-0.2, 0.1, 0.1, 0.0]]))
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def call(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(rational, {"numerator": a, "denominator": b}, (x,))

    parameters = (rational.numerator.detach().requires_grad_(), rational.denominator.detach().requires_grad_())
    assert torch.autograd.gradcheck(call, (x, *parameters))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("start", ["identity", "gelu"])
def test_finite_on_the_whole_line(start: str, degree: int, dtype: torch.dtype) -> None:
    rational = GroupRational(2, 2, start, degree=degree, dtype=dtype)
    x = torch.tensor([0.0, 1e-30, 1.0, 50.0, 1e3, 1e6, 3e38], dtype=dtype)
    x = torch.stack([x, -x], dim=-1).requires_grad_()
    y = rational(x)
    assert y.dtype == dtype
    assert bool(y.isfinite().all())
    for gradient in torch.autograd.grad(y, [x, *rational.parameters()], torch.randn(x.shape).to(dtype)):
        assert bool(gradient.isfinite().all())


def test_channels_may_lie_on_another_axis() -> None:
    rational = GroupRational(4, 2, "tanh", dim=1)
    with torch.no_grad():
        rational.denominator[1] += 0.5
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(rational(x), GroupRational.forward(_last(rational), x.movedim(1, -1)).movedim(-1, 1))


def _last(rational: GroupRational) -> GroupRational:
    other = GroupRational(rational.channels, rational.groups, rational.start)
    other.load_state_dict(rational.state_dict())
    return other


@pytest.mark.parametrize(("name", "gain"), [("gelu", 2.3525), ("silu", 2.8115), ("relu", 2.0), ("identity", 1.0)])
def test_the_variance_gain_is_that_of_the_activation(name: str, gain: float) -> None:
    assert variance_gain(GroupRational(8, 4, name)) == pytest.approx(gain, rel=0.01)


def test_a_gr_kan_layer_keeps_the_second_moment_and_counts_its_parameters() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 256, generator=generator)
    for start in ("gelu", "silu", "identity"):
        layer = GRKANLinear(256, 128, groups=8, start=start, generator=generator)
        assert float(layer(x).square().mean().detach()) == pytest.approx(1, rel=0.1)
        assert sum(p.numel() for p in layer.parameters()) == 256 * 128 + 128 + 6 + 8 * 4


def test_the_feed_forward_part_is_identity_linear_activation_linear() -> None:
    mlp = GRKANMLP(8, 16, start="silu", degree=7, dtype=torch.float64)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    plain = mlp.fc2.linear(F.silu(mlp.fc1.linear(x)))
    torch.testing.assert_close(mlp(x), plain, atol=1e-5, rtol=1e-5)


def test_bad_input_is_refused_in_one_sentence() -> None:
    with pytest.raises(BadInputError, match="groups must divide the channels, got 8 for 12"):
        GroupRational(12)
    with pytest.raises(UnknownNameError, match="unknown activation 'gelo'; did you mean 'gelu'"):
        GroupRational(8, start="gelo")
    with pytest.raises(BadInputError, match="degree of a rational must be one of 3, 5, 7, 9, got 4"):
        GroupRational(8, degree=4)
    with pytest.raises(BadInputError, match="low < high"):
        fit_rational(torch.tanh, 5, 1.0, 1.0)
    assert math.isclose(shipped_fit("swish").max_error, shipped_fit("silu").max_error)

"""What a module costs: counted bytes are exact and repeatable, and times follow the work that is done."""

import pytest
import torch
from torch import Tensor, nn

from layersearch.primitives.cost import latency_ratio, peak_bytes
from layersearch.primitives.lowering import LOWERINGS, build_layer
from layersearch.spaces.evonorm.published import PUBLISHED

X = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))
ONE = X.numel() * 4  # bytes of a tensor of that size
REFERENCE = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())


class Of(nn.Module):
    """``f(x)``, done ``times`` over."""

    def __init__(self, f: object, times: int = 1) -> None:
        super().__init__()
        self.f, self.times = f, times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.f(x)  # type: ignore[operator]
        return x


@pytest.mark.parametrize(
    ("f", "times", "tensors"),
    [
        (torch.neg, 1, 2),  # result and gradient
        (torch.neg, 3, 3),  # nothing is saved: at most two results and a gradient, or the reverse
        (torch.exp, 3, 5),  # all three results are saved; two gradients at a time
        (lambda x: x.view(-1).view_as(x) * 1.0, 1, 2),  # a view is no tensor of its own
        (lambda x: x.clone().exp_(), 1, 2),  # done in place
    ],
)
def test_bytes_are_those_of_the_tensors_that_are_alive(f: object, times: int, tensors: int) -> None:
    assert peak_bytes(Of(f, times), X) == tensors * ONE


def test_bytes_of_the_reference_are_the_same_each_time() -> None:
    found = {peak_bytes(REFERENCE, X) for _ in range(3)}
    assert len(found) == 1
    assert 3 * ONE <= found.pop() < 3.1 * ONE, "two results or gradients beside one that is saved"
    assert X.grad is None
    assert all(p.grad is None for p in REFERENCE.parameters())


def test_a_layer_of_many_small_steps_holds_more_than_a_fused_one() -> None:
    by_torch = peak_bytes(build_layer(PUBLISHED["evonorm-b0"], 8, lowering="torch"), X)
    assert by_torch > 2 * peak_bytes(REFERENCE, X)
    if LOWERINGS["c"].why_unavailable() is None:
        assert peak_bytes(build_layer(PUBLISHED["evonorm-b0"], 8, lowering="c"), X) < by_torch / 2


def test_times_are_those_of_the_reference() -> None:
    """The odds of a false alarm are those that half of 11 pairs are off by a factor of three."""
    x = torch.randn(8, 16, 16, 16)
    one, ten = Of(torch.exp, 3), Of(torch.exp, 30)
    assert 3 < latency_ratio(ten, one, x) < 33
    assert 1 / 3 < latency_ratio(one, one, x) < 3


def test_a_slow_module_is_measured_fewer_times(monkeypatch: pytest.MonkeyPatch) -> None:
    from layersearch.primitives import cost

    n = 0

    def count(x: Tensor) -> Tensor:
        nonlocal n
        n += 1
        return x.exp()

    monkeypatch.setattr(cost, "_ENOUGH_S", 0.0)
    latency_ratio(Of(count), REFERENCE, X)
    assert n == 1 + cost._WARM_UPS + cost._FEWEST_PAIRS

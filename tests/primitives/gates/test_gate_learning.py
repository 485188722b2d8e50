"""Rewinding, the controller of the kept ratio, and the optimiser of rows."""

import math

import pytest
import torch
from torch import nn

from layersearch.errors import BadInputError
from layersearch.primitives.gates.base import GATES
from layersearch.primitives.gates.continuation import Continuation
from layersearch.primitives.gates.controller import RatioController
from layersearch.primitives.gates.rewind import Rewind
from layersearch.primitives.gates.row_adam import RowAdam


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(2))])
        self.register_buffer("unsaved", torch.zeros(2), persistent=False)


def test_a_rewind_restores_every_parameter_and_buffer() -> None:
    net = Net()
    before = Rewind(net)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    loss = net.net(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).square().sum() + sum(
        b.sum() for b in net.biases
    )
    loss.backward()
    optimiser.step()
    net.unsaved.add_(1)  # type: ignore[operator]
    changed = [n for n, t in Rewind(net).tensors.items() if not torch.equal(t, before.tensors[n])]
    assert {"biases.0", "unsaved", "net.1.running_mean", "net.1.num_batches_tracked", "net.0.weight"} <= set(changed)
    before.restore(net)
    assert all(torch.equal(t, before.tensors[n]) for n, t in Rewind(net).tensors.items())
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(BadInputError, match="same module"):
        before.restore(nn.Linear(2, 2))


def rows_of(step: int) -> torch.Tensor:
    return torch.randint(8, (6,), generator=torch.Generator().manual_seed(step))


def gradient_of(step: int) -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)


def run_rows(steps: int, decay: float, everywhere: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A table after ``steps``; also the rows that each forward pass saw."""
    table = nn.Parameter(torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(8, 3).clone())
    optimiser = RowAdam([table], lr=0.05, weight_decay=decay)
    seen = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.05 / (1 + step)
        ids = torch.arange(8)[:6] if everywhere else rows_of(step)
        optimiser.catch_up(table, ids)
        values = nn.functional.embedding(ids, table, sparse=True)
        seen.append(values.detach().clone())
        optimiser.zero_grad()
        (values * gradient_of(step)).sum().backward()
        optimiser.step()
    optimiser.flush()
    return table.detach(), seen


def test_rows_that_always_occur_follow_the_dense_optimiser() -> None:
    for decay in (0.0, 0.3):
        dense = nn.Parameter(torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(8, 3)[:6].clone())
        optimiser = torch.optim.AdamW([dense], lr=0.05, weight_decay=decay)
        for step in range(20):
            optimiser.param_groups[0]["lr"] = 0.05 / (1 + step)
            optimiser.zero_grad()
            (dense * gradient_of(step)).sum().backward()
            optimiser.step()
        table, _ = run_rows(20, decay, everywhere=True)
        torch.testing.assert_close(table[:6], dense.detach(), rtol=1e-12, atol=1e-14)


def test_other_rows_follow_it_on_the_steps_at_which_they_occur_and_decay_at_each() -> None:
    for decay in (0.0, 0.3):
        table, seen = run_rows(30, decay)
        start = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(8, 3)
        for row in range(8):
            single = nn.Parameter(start[row].clone())
            optimiser = torch.optim.AdamW([single], lr=0.05, weight_decay=decay)
            for step in range(30):
                rate = 0.05 / (1 + step)
                places = (rows_of(step) == row).nonzero().flatten()
                if len(places):
                    torch.testing.assert_close(seen[step][places[0]], single.detach(), rtol=1e-11, atol=1e-13)
                    optimiser.param_groups[0]["lr"] = rate
                    single.grad = gradient_of(step)[places].sum(0)
                    optimiser.step()
                else:
                    with torch.no_grad():
                        single.mul_(1 - rate * decay)
            torch.testing.assert_close(table[row], single.detach(), rtol=1e-11, atol=1e-13)


def test_decay_is_put_off_until_a_row_occurs() -> None:
    table = nn.Parameter(torch.ones(5, 1))
    optimiser = RowAdam([table], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        nn.functional.embedding(torch.tensor([0]), table, sparse=True).sum().mul(0).backward()
        optimiser.step()
        table.grad = None
    assert table[4].item() == 1
    optimiser.catch_up(table, torch.tensor([[4, 4]]))
    assert table[4].item() == pytest.approx(0.95**3)
    optimiser.flush()
    optimiser.flush()
    assert table.flatten().tolist() == pytest.approx([0.95**3] * 5)


def test_a_step_does_not_read_rows_that_do_not_occur() -> None:
    table = nn.Parameter(torch.full((1000, 2), math.nan))
    with torch.no_grad():
        table[:3] = 1
    optimiser = RowAdam([table], weight_decay=0.1)
    ids = torch.tensor([0, 2, 2])
    optimiser.catch_up(table, ids)
    nn.functional.embedding(ids, table, sparse=True).sum().backward()
    optimiser.step()
    assert bool(table[:3].isfinite().all())
    assert bool(table[3:].isnan().all())


def test_dense_gradients_and_bad_rates_are_refused() -> None:
    table = nn.Parameter(torch.ones(2, 2))
    table.sum().backward()
    with pytest.raises(BadInputError, match="sparse gradients"):
        RowAdam([table]).step()
    with pytest.raises(BadInputError, match="below 1"):
        RowAdam([table], lr=2, weight_decay=0.5)


@pytest.mark.parametrize("pull", [0.002, 0.02, 0.2])
def test_the_controller_reaches_its_ratio_whatever_the_scale_of_the_loss(pull: float) -> None:
    """Gates whose use is worth ``pull`` times a number of their own: the most useful ones stay."""
    relaxation = Continuation(last=50.0)
    gates = GATES["value"]((50, 50), relaxation, sparse=False)
    worth = pull * torch.rand(100, generator=torch.Generator().manual_seed(0))
    controller = RatioController(target=0.3)
    optimiser = torch.optim.SGD(gates.parameters(), lr=0.01 / pull)
    ratios = []
    for step in range(200):
        gate = relaxation.gate(gates.logits.squeeze(-1), relaxation.temperature(step, 200))
        optimiser.zero_grad()
        (0.5 * pull * gate.sum() - (worth * gate).sum()).backward()
        optimiser.step()
        controller.update(gates, step / 199)
        ratios.append(gates.kept_ratio())
    assert 0.3 < ratios[100] <= controller.wanted(100 / 199) + 0.01
    kept = gates.selected()
    assert int(kept.sum()) == 30
    assert float(worth[kept].min()) > 0.95 * float(worth[~kept].max())


@pytest.mark.parametrize("target", [0.0, -1.0, 1.01, math.nan])
def test_a_target_must_be_a_ratio(target: float) -> None:
    with pytest.raises(BadInputError, match=r"in \(0, 1\]"):
        RatioController(target=target)

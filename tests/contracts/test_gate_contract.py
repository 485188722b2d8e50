"""What every kind of gates and every relaxation promise; new ones are picked up from the registries."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from layersearch.errors import BadInputError
from layersearch.primitives.gates.base import GATES, HARD, RELAXATIONS, Gates, Relaxation, pair_indices
from layersearch.primitives.gates.gate_set import GateSet

SIZES = (4, 3, 6)
IDS = torch.tensor([[0, 4, 7], [3, 6, 12], [0, 5, 8], [1, 4, 7], [2, 6, 9]])
CASES = [pytest.param(k, r, id=f"{k}-{r}") for k in GATES for r in RELAXATIONS]


def make(kind: str, relaxation: str, spread: float = 0.3, sparse: bool = False) -> Gates:
    """Gates with logits on both sides of 0, none at it, in float64."""
    gates = GATES[kind](SIZES, RELAXATIONS[relaxation](), sparse=sparse, dtype=torch.float64)
    with torch.no_grad():
        drawn = 0.1 + torch.rand(gates.logits.shape, generator=torch.Generator().manual_seed(3))
        drawn[1::2] *= -1
        gates.logits.copy_(spread * drawn)
    return gates


def expected(gates: Gates, gate: Tensor) -> Tensor:
    """What a kind makes of one number per logit, written out."""
    i, j = pair_indices(len(SIZES))
    if gates.name == "value":
        return gate[IDS]
    if gates.name == "field":
        return gate.repeat(len(IDS), 1)
    if gates.name == "pair":
        return gate
    return torch.stack([gate[IDS[:, a]] * gate[IDS[:, b]] for a, b in zip(i, j, strict=True)], 1)


@pytest.mark.parametrize(("kind", "relaxation"), CASES)
def test_gates_lie_between_0_and_their_bound_and_begin_open(kind: str, relaxation: str) -> None:
    gates = make(kind, relaxation, spread=4.0)
    rows = gates.relaxation
    for temperature in (rows.first, 7.0, rows.last):
        for generator in (None, torch.Generator().manual_seed(0)):
            values = gates(IDS, temperature, generator).detach()
            power = 2 if kind == "product" else 1
            assert 0 <= float(values.min()) <= float(values.max()) <= rows.largest(temperature) ** power
    fresh = GATES[kind](SIZES, rows)
    assert bool(fresh.selected().all())
    values = fresh(IDS, rows.first).detach()
    assert float(values.min()) > 0.6
    if relaxation == "continuation":
        torch.testing.assert_close(values, torch.ones_like(values))
    assert rows.largest(rows.last) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("kind", "relaxation"), CASES)
def test_gradients_are_those_of_the_forward(kind: str, relaxation: str) -> None:
    gates = make(kind, relaxation)
    parameter = gates.logits
    for temperature in (gates.relaxation.first, 5.0):
        seed = torch.Generator().manual_seed(0).get_state()

        def forward(logits: Tensor, temperature: float = temperature, seed: Tensor = seed) -> Tensor:
            generator = torch.Generator()
            generator.set_state(seed)
            upstream = torch.randn(100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            counts = torch.arange(1, sum(SIZES) + 1)
            values = torch.func.functional_call(gates, {"logits": logits}, (IDS, temperature, generator))
            price = torch.func.functional_call(PriceOf(gates), {"gates.logits": logits}, (temperature, counts))
            return (values.flatten() * upstream[: values.numel()]).sum() + 3 * price

        assert torch.autograd.gradcheck(forward, (parameter.detach().clone().requires_grad_(),), eps=1e-7, atol=1e-5)


class PriceOf(torch.nn.Module):
    def __init__(self, gates: Gates) -> None:
        super().__init__()
        self.gates = gates

    def forward(self, temperature: float, counts: Tensor) -> Tensor:
        return self.gates.price(IDS, temperature, counts, 50)


@pytest.mark.parametrize(("kind", "relaxation"), CASES)
def test_the_limit_is_exactly_0_or_1_and_is_the_selection(kind: str, relaxation: str) -> None:
    gates = make(kind, relaxation)
    gate = gates.selected().double()
    assert 0 < float(gate.mean()) < 1
    limit = gates(IDS, HARD, torch.Generator())
    assert torch.equal(limit, expected(gates, gate))
    assert not limit.requires_grad
    assert torch.equal(gates(IDS, 1e30), limit), "the soft gate must tend to the hard one"
    price = gates.relaxation.price(gates.logits.squeeze(-1), HARD)
    assert torch.equal(price, gate)


@pytest.mark.parametrize(("kind", "relaxation"), CASES)
def test_values_are_one_formula_per_logit(kind: str, relaxation: str) -> None:
    gates = make(kind, relaxation)
    m, tau = gates.logits.detach().squeeze(-1), 3.0
    s = 1 / (1 + torch.exp(-tau * m))
    formula = {
        "continuation": s * (1 + math.exp(-tau * gates.relaxation.start)),
        "hard_concrete": torch.clamp(1.2 * s - 0.1, 0, 1),
        "gumbel": s,
    }[relaxation]
    torch.testing.assert_close(gates(IDS, tau), expected(gates, formula))


@pytest.mark.parametrize(("kind", "relaxation"), CASES)
def test_the_price_of_all_batches_is_that_of_all_gates(kind: str, relaxation: str) -> None:
    gates = make(kind, relaxation)
    counts = torch.bincount(IDS.flatten(), minlength=sum(SIZES))
    tau, n = 2.0, len(IDS)
    per_gate = gates.relaxation.price(gates.logits.detach().squeeze(-1), tau) * gates.weights().double()
    seen = counts > 0 if gates.per_value else torch.ones(len(gates.logits), dtype=torch.bool)
    whole = per_gate[seen].sum() / n
    batches = torch.stack([gates.price(row.unsqueeze(0), tau, counts, n) for row in IDS])
    torch.testing.assert_close(batches.mean(), whole)


@pytest.mark.parametrize(("kind", "relaxation"), CASES)
@pytest.mark.parametrize("ratio", [0.01, 0.34, 0.5, 0.9, 1.0])
def test_a_ratio_is_kept_exactly_and_in_the_order_of_the_logits(kind: str, relaxation: str, ratio: float) -> None:
    for gates in (make(kind, relaxation), GATES[kind](SIZES, RELAXATIONS[relaxation]())):
        before = gates.logits.detach().squeeze(-1).clone()
        gates.keep(ratio)
        n_kept = round(ratio * len(before))
        kept = gates.selected()
        assert int(kept.sum()) == n_kept
        assert gates.kept_ratio() == n_kept / len(before)
        if 0 < n_kept < len(before):
            assert float(before[kept].min()) >= float(before[~kept].max())
            assert torch.equal(gates(IDS, 1e30), gates(IDS, HARD))


@pytest.mark.parametrize(("kind", "relaxation"), CASES)
def test_sparse_and_dense_gradients_agree(kind: str, relaxation: str) -> None:
    dense, sparse = make(kind, relaxation), make(kind, relaxation, sparse=True)
    counts = torch.ones(sum(SIZES), dtype=torch.int64)
    for gates in (dense, sparse):
        (gates(IDS, 2.0).square().sum() + gates.price(IDS, 2.0, counts, 5)).backward()
    assert sparse.logits.grad is not None
    assert sparse.logits.grad.is_sparse == sparse.per_value
    torch.testing.assert_close(sparse.logits.grad.to_dense(), dense.logits.grad)


@pytest.mark.parametrize("name", list(RELAXATIONS))
def test_the_temperature_moves_with_every_batch(name: str) -> None:
    row: Relaxation = RELAXATIONS[name](first=2.0, last=200.0)
    temperatures = [row.temperature(step, 5) for step in range(5)]
    assert temperatures[0] == 2.0
    assert temperatures[-1] == pytest.approx(200.0)
    ratios = [b / a for a, b in itertools.pairwise(temperatures)]
    assert ratios == pytest.approx([100**0.25] * 4)
    for step, steps in ((0, 1), (5, 5), (-1, 5)):
        with pytest.raises(BadInputError, match="at least 2 batches"):
            row.temperature(step, steps)


@pytest.mark.parametrize("name", list(RELAXATIONS))
def test_rows_are_complete_and_check_their_numbers(name: str) -> None:
    row = RELAXATIONS[name]
    assert row.name == name
    assert row.title
    assert row.source
    for bad in ({"start": 0.0}, {"start": math.nan}, {"first": 0.0}, {"first": 3.0, "last": 2.0}, {"last": math.inf}):
        with pytest.raises(BadInputError, match=f"gates '{name}'"):
            row(**bad)


@pytest.mark.parametrize("name", list(RELAXATIONS))
def test_draws_follow_their_generator(name: str) -> None:
    gates = make("value", name)
    draw = lambda seed: gates(IDS, 1.0, torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(0), draw(0))
    assert torch.equal(draw(0), draw(1)) != gates.relaxation.is_random


@pytest.mark.parametrize("kind", list(GATES))
def test_kinds_are_complete_and_refuse_a_single_field(kind: str) -> None:
    row = GATES[kind]
    assert row.name == kind
    assert row.title
    assert row.source
    with pytest.raises(BadInputError, match="at least 2 fields"):
        row((5,), RELAXATIONS["continuation"]())
    for ratio in (0.0, 1.5, math.nan):
        with pytest.raises(BadInputError, match=r"in \(0, 1\]"):
            make(kind, "continuation").keep(ratio)


def test_a_set_multiplies_gates_of_one_target_and_reports_one_selection() -> None:
    gates = GateSet(list(GATES), SIZES, RELAXATIONS["continuation"](), sparse=False)
    with torch.no_grad():
        gates.gates["value"].logits[7] = -1
        gates.gates["field"].logits[1] = -1
        gates.gates["pair"].logits[2] = -1
    gated = gates(IDS, HARD, history=torch.tensor([[7, 8, -1]] * len(IDS)))
    assert gated.features is not None
    assert gated.pairs is not None
    assert gated.history is not None
    assert gated.features[0].tolist() == [1, 0, 0]
    assert gated.pairs[0].tolist() == [1, 1, 0]
    assert gated.history[0].tolist() == [0, 1, 1]
    selection = gates.selection()
    assert selection.rows().tolist() == [k not in (4, 5, 6, 7) for k in range(13)]
    assert selection.pairs.tolist() == [True, True, False]
    with pytest.raises(BadInputError, match="name each once"):
        GateSet(["pair", "pair"], SIZES, RELAXATIONS["continuation"]())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("name", list(RELAXATIONS))
def test_the_price_is_its_formula_and_for_draws_the_chance_of_being_open(name: str, temperature: float) -> None:
    row = RELAXATIONS[name]()
    m = torch.linspace(-2, 2, 9, dtype=torch.float64)
    shift = {"continuation": 0.0, "hard_concrete": math.log(0.1 / 1.1) / temperature, "gumbel": 0.0}[name]
    if name == "continuation":
        torch.testing.assert_close(row.price(m, temperature), row.gate(m, temperature))
        return
    torch.testing.assert_close(row.price(m, temperature), 1 / (1 + torch.exp(shift - m)))
    n = 20_000
    noise = row.noise((n, 9), m, torch.Generator().manual_seed(0))
    least = 0.5 if name == "gumbel" else 0.0
    share = (row.gate(m.expand(n, -1), temperature, noise) > least).double().mean(0)
    # 5 standard deviations of a share of 20,000: one false alarm in 10⁵ runs of all cases.
    torch.testing.assert_close(share, row.price(m, temperature), rtol=0, atol=5 * 0.5 / n**0.5)


@pytest.mark.parametrize("growth", [0.3, 1.0])
def test_a_price_may_grow_with_the_count_of_a_value(growth: float) -> None:
    gates = make("value", "continuation")
    counts = torch.arange(1, sum(SIZES) + 1) * 40
    one = torch.tensor([[0, 4, 7]])
    per_value = gates.relaxation.price(gates.logits.detach()[one[0], 0], 2.0)
    times = counts[one[0]].double()
    expected = (per_value * (times / 100) ** growth / times).sum()
    torch.testing.assert_close(gates.price(one, 2.0, counts, 50, growth).detach(), expected)

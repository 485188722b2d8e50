"""What ``RowAdam`` promises of its forms: the numbers of float64, state that each takes, of C the bits of torch.

Triton is run on a GPU (marked ``gpu``) and, where ``TRITON_INTERPRET=1`` is set, by its interpreter: the last test runs
this file so.
"""

import copy
import io
from contextlib import nullcontext

import pytest
import torch
from defaults import defaults, each_default
from interpreted import INTERPRETS, each_kernel_way, interpreted, once_interpreted
from lowered import error
from torch import Tensor, nn

from layersearch.errors import BadInputError, KernelError
from layersearch.kernels.lookup.row_adam import DIGIT, CRowAdam
from layersearch.kernels.lookup.row_adam_triton import TritonRowAdam
from layersearch.primitives.gates import row_adam as module
from layersearch.primitives.gates._row_torch import TorchRowAdam
from layersearch.primitives.gates.row_adam import RowAdam
from layersearch.primitives.layers._lowered import reason_against
from layersearch.primitives.lowering.base import say_once

ROWS, STEPS = 60, 25
RATE = 0.05
CPU_SECONDS = 20

Way = tuple[str, str]
each_way = each_kernel_way("torch")
not_interpreted = pytest.mark.skipif(INTERPRETS, reason="Triton is being interpreted")
needs_c = pytest.mark.skipif(INTERPRETS or reason_against("c") is not None, reason="no lowering c, or not its turn")
each_form = pytest.mark.parametrize(
    "form", [pytest.param("c", marks=needs_c), pytest.param("torch", marks=not_interpreted)]
)
each_decay = pytest.mark.parametrize("decay", [0.0, 0.3])

pytestmark = [pytest.mark.usefixtures("poisoned_memory")]


class Training:
    """A table ``[ROWS, columns]`` that is stepped with gradients of many magnitudes, on rows that differ by step."""

    def __init__(self, form: str, columns: int, decay: float, seed: int = 0, device: str = "cpu") -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(ROWS, columns, generator=self.draw).to(device))
        self.optimiser = RowAdam([self.table], lr=RATE, weight_decay=decay, lowering=form)
        self.steps = 0

    def run(self, steps: int) -> "Training":
        for _ in range(steps):
            self.optimiser.param_groups[0]["lr"] = RATE / (1 + 0.1 * self.steps)
            ids = torch.randint(ROWS, (20,), generator=self.draw)
            rows = torch.unique(ids)
            size = 10 ** (torch.rand(len(rows), 1, generator=self.draw) * 6 - 4)
            values = torch.randn(len(rows), self.table.shape[1], generator=self.draw) * size
            device = self.table.device
            self.optimiser.catch_up(self.table, ids.to(device))
            self.table.grad = sparse(rows.to(device), values.to(device))
            self.optimiser.step()
            self.steps += 1
        return self

    @property
    def state(self) -> dict[str, Tensor]:
        return dict(self.optimiser.state[self.table])

    def flushed(self) -> Tensor:
        self.optimiser.flush()
        return self.table.detach().cpu().clone()


FORMS = {"c": CRowAdam, "torch": TorchRowAdam, "triton": TritonRowAdam}


def sparse(rows: Tensor, values: Tensor, size: int = ROWS) -> Tensor:
    shape = (size, values.shape[1])
    return torch.sparse_coo_tensor(rows[None], values, shape, is_coalesced=True, check_invariants=False)


def exact(columns: int, decay: float) -> Tensor:
    """The table in float64, each row an AdamW of its own: what the docstring says, said again."""
    draw = torch.Generator().manual_seed(0)
    table = torch.randn(ROWS, columns, generator=draw).double()
    moments = torch.zeros(2, ROWS, columns, dtype=torch.float64)
    counts = [0] * ROWS
    for step in range(STEPS):
        rate = RATE / (1 + 0.1 * step)
        rows = torch.unique(torch.randint(ROWS, (20,), generator=draw))
        size = 10 ** (torch.rand(len(rows), 1, generator=draw) * 6 - 4)
        values = (torch.randn(len(rows), columns, generator=draw) * size).double()
        table *= 1 - rate * decay
        for row, g in zip(rows.tolist(), values, strict=True):
            counts[row] += 1
            moments[0, row] = 0.9 * moments[0, row] + 0.1 * g
            moments[1, row] = 0.999 * moments[1, row] + 0.001 * g * g
            first, second = moments[:, row] / torch.tensor([[1 - 0.9 ** counts[row]], [1 - 0.999 ** counts[row]]])
            table[row] -= rate * first / (second.sqrt() + 1e-8)
    return table


def assert_same(first: Training, second: Training) -> None:
    """Bits of values and of all state."""
    assert first.state.keys() == second.state.keys()
    for name, value in first.state.items():
        assert value.dtype is second.state[name].dtype
        assert torch.equal(value, second.state[name]), name
    assert torch.equal(first.flushed(), second.flushed())


@each_way
@each_decay
@pytest.mark.parametrize("columns", [1, 5, 17])
def test_results_are_those_of_float64(way: Way, decay: float, columns: int) -> None:
    training = Training(way[0], columns, decay, device=way[1]).run(STEPS)
    assert isinstance(module._form(way[0], training.table), FORMS[way[0]])
    assert error(training.flushed(), exact(columns, decay)) < 8 * torch.finfo(torch.float32).eps


@each_form
@each_default
def test_the_default_dtype_and_device_do_not_matter(form: str, dtype: torch.dtype, device: str | None) -> None:
    found = []
    for ways in (defaults(), defaults(dtype, device)):
        training, gradient = Training(form, 5, 0.3), sparse(torch.tensor([0, 2]), torch.ones(2, 5))
        module._powers.cache_clear()
        with ways:
            for _ in range(3):
                training.table.grad = gradient
                training.optimiser.step()
            training.optimiser.flush()
        found.append(training)
    assert_same(*found)
    sizes = [training.state["mean"].untyped_storage().nbytes() for training in found]
    assert sizes[0] == sizes[1]


@needs_c
@each_decay
@pytest.mark.parametrize("columns", [1, 2, 5, 16, 17, 33])
def test_c_has_the_bits_of_torch(columns: int, decay: float, rounds: int) -> None:
    """A training does not depend on whether its machine has a compiler."""
    for seed in range(rounds):
        assert_same(*(Training(form, columns, decay, seed).run(STEPS) for form in ("c", "torch")))


@needs_c
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.99999), (0.5, 0.0)])
def test_counts_of_every_size_have_the_same_bits(betas: tuple[float, float]) -> None:
    counts = torch.tensor([0, 1, DIGIT - 2, DIGIT - 1, DIGIT, 17_000, DIGIT**2 - 1, DIGIT**2 + 5, 2**31 - 2])
    found = []
    for form in ("c", "torch"):
        table = nn.Parameter(torch.ones(len(counts), 3))
        optimiser = RowAdam([table], lr=0.1, betas=betas, lowering=form)
        rows = torch.arange(len(counts))
        table.grad = sparse(rows, torch.zeros(len(counts), 3), len(counts))
        optimiser.step()
        optimiser.state[table]["count"].copy_(counts)
        table.grad = sparse(rows, torch.linspace(-2, 3, 3 * len(counts)).view(-1, 3), len(counts))
        optimiser.step()
        assert torch.equal(optimiser.state[table]["count"].long(), counts + 1)
        state = optimiser.state[table]
        n = (counts + 1).double().unsqueeze(-1)
        first, second = (state[k].double() / (1 - b**n) for k, b in zip(("mean", "square"), betas, strict=True))
        assert error(table.detach(), 1 - 0.1 * first / (second.sqrt() + 1e-8)) < 1e-6
        found.append(table.detach())
    assert torch.equal(*found)


@needs_c
def test_decay_that_is_owed_has_the_same_bits_however_long_it_was_put_off() -> None:
    owed = torch.cat([torch.logspace(-16, 2.5, 5000, dtype=torch.float64), torch.tensor([0.0, 705.0, 1e6])])
    found = []
    for form in ("c", "torch"):
        table = nn.Parameter(torch.linspace(0.5, 2, 2 * len(owed)).view(-1, 2))
        optimiser = RowAdam([table], lr=0.1, weight_decay=0.1, lowering=form)
        table.grad = sparse(torch.tensor([0]), torch.ones(1, 2), len(owed))
        optimiser.step()
        state = optimiser.state[table]
        state["log_decay"].fill_(-1.0)
        state["decayed"].copy_(owed - 1)
        before = table.detach().clone()
        optimiser.flush()
        kept = (-owed).exp().unsqueeze(-1) * before.double()
        torch.testing.assert_close(table.detach().double(), kept, rtol=2e-7, atol=1e-44)
        found.append(table.detach())
    assert torch.equal(*found)


@needs_c
def test_odd_numbers_come_through_alike() -> None:
    found = []
    for form in ("c", "torch"):
        table = nn.Parameter(torch.tensor([[1.0, 0.0, 1e38, 1e-45, 2.0, -3.0]]))
        optimiser = RowAdam([table], lr=0.1, weight_decay=0.1, lowering=form)
        for _ in range(3):
            table.grad = sparse(torch.tensor([0]), torch.tensor([[0.0, 1e-40, 1e30, 1e-20, torch.inf, torch.nan]]), 1)
            optimiser.step()
        assert table[0, :4].isfinite().tolist() == [True, True, True, True]
        assert table[0, 4:].isnan().all()
        found.append(table.detach())
    assert torch.equal(found[0][:, :4], found[1][:, :4])


@needs_c
@each_decay
@pytest.mark.parametrize("forms", [("c", "torch"), ("torch", "c")])
def test_state_of_one_form_is_continued_by_the_other(forms: tuple[str, str], decay: float) -> None:
    """Through a file, as a user would."""
    whole, first = (Training(forms[0], 5, decay).run(n) for n in (STEPS, 10))
    buffer = io.BytesIO()
    torch.save(first.optimiser.state_dict(), buffer)
    buffer.seek(0)
    second = Training(forms[1], 5, decay)
    second.optimiser.load_state_dict(torch.load(buffer, weights_only=True))
    second.optimiser.param_groups[0]["lowering"] = forms[1]
    second.draw, second.steps = first.draw, first.steps
    second.table.data.copy_(first.table.data)
    assert_same(second.run(STEPS - 10), whole)


@each_form
@pytest.mark.parametrize("resaved", [False, True])
def test_state_of_earlier_versions_is_taken(form: str, resaved: bool) -> None:
    """Their groups had no lowering, their tensors lay apart; saved again after a load, all were of the table's type."""
    whole, first = (Training(form, 5, 0.3).run(n) for n in (STEPS, 10))
    saved = copy.deepcopy(first.optimiser.state_dict())
    del saved["param_groups"][0]["lowering"]
    saved["state"][0] = {name: saved["state"][0][name].clone() for name in ("mean", "square", "count", "decayed")} | {
        "log_decay": saved["state"][0]["log_decay"]
    }
    assert saved["state"][0]["mean"].is_contiguous()
    if resaved:
        saved["state"][0] = {name: value.float() for name, value in saved["state"][0].items()}
    first.optimiser = RowAdam([first.table], lr=RATE, weight_decay=0.3)
    first.optimiser.load_state_dict(saved)
    assert first.optimiser.param_groups[0]["lowering"] == "auto"
    assert {first.state[name].dtype for name in ("decayed", "log_decay")} == {torch.float64}
    assert first.state["count"].dtype is torch.int32
    if resaved:  # decays have been rounded
        torch.testing.assert_close(first.run(STEPS - 10).flushed(), whole.flushed())
    else:
        assert_same(first.run(STEPS - 10), whole)


@needs_c
def test_a_row_has_its_state_side_by_side_and_a_copy_of_the_optimiser_its_own() -> None:
    first = Training("c", 5, 0.3).run(3)
    state = first.state
    spans = {value.untyped_storage().data_ptr() for name, value in state.items() if name != "log_decay"}
    assert len(spans) == 1
    assert state["mean"].stride() == (16, 1)
    other = copy.deepcopy(first)
    other.run(2)
    assert not torch.equal(other.table, first.table)
    assert int(first.state["count"].sum()) < int(other.state["count"].sum())
    assert_same(first.run(2), other)


@needs_c
def test_decay_that_ends_is_still_made_up() -> None:
    for form in ("c", "torch"):
        table = nn.Parameter(torch.ones(3, 1))
        optimiser = RowAdam([table], lr=0.1, weight_decay=0.5, lowering=form)
        for decay in (0.5, 0.0):
            optimiser.param_groups[0]["weight_decay"] = decay
            table.grad = sparse(torch.tensor([0]), torch.zeros(1, 1), 3)
            optimiser.step()
        optimiser.flush()
        assert table.flatten().tolist() == pytest.approx([0.95] * 3)


@each_form
def test_a_row_outside_the_table_is_refused_and_nothing_is_changed(form: str) -> None:
    training = Training(form, 2, 0.3).run(1)
    before = copy.deepcopy(training)
    for row in (-1, ROWS):
        with pytest.raises(IndexError):
            training.optimiser.catch_up(training.table, torch.tensor([0, row]))
    training.table.grad = sparse(torch.tensor([0, ROWS]), torch.ones(2, 2))
    with pytest.raises(IndexError):
        training.optimiser.step()
    training.table.grad = before.table.grad = None
    assert_same(training, before)


@each_form
def test_gradients_that_are_not_of_rows_are_refused(form: str) -> None:
    for shape, gradient in (
        ((4, 3), torch.ones(4, 3).to_sparse()),
        ((4, 3, 2), torch.sparse_coo_tensor([[0]], torch.ones(1, 3, 2), (4, 3, 2), check_invariants=False)),
        ((4,), torch.sparse_coo_tensor([[0]], torch.ones(1), (4,), check_invariants=False)),
    ):
        table = nn.Parameter(torch.zeros(shape))
        table.grad = gradient
        with pytest.raises(BadInputError, match=r"tables \[rows, columns\]"):
            RowAdam([table], lowering=form).step()
        assert not table.detach().any()


@each_form
def test_state_of_one_row_can_be_saved(form: str) -> None:
    table = nn.Parameter(torch.ones(1, 3))
    optimiser = RowAdam([table], lowering=form)
    table.grad = sparse(torch.tensor([0]), torch.ones(1, 3), 1)
    optimiser.step()
    for saved in (optimiser.state_dict(), optimiser):
        torch.save(saved, io.BytesIO())


@needs_c
def test_a_table_that_outgrew_its_state_is_refused() -> None:
    training = Training("c", 2, 0.3).run(1)
    training.table.grad = None
    training.table.data = torch.ones(2 * ROWS, 2)
    with pytest.raises(IndexError):
        training.optimiser.flush()
    training.table.grad = sparse(torch.tensor([ROWS]), torch.ones(1, 2), 2 * ROWS)
    with pytest.raises(IndexError):
        training.optimiser.step()


@each_way
def test_ids_of_a_batch_may_repeat_and_need_not_lie_in_order(way: Way) -> None:
    training = Training(way[0], 2, 0.3, device=way[1]).run(5)
    before = training.table.detach().double().cpu()
    due = training.state["log_decay"] - training.state["decayed"].cpu()
    first, second, *others = due.nonzero().flatten().tolist()
    ids = torch.tensor([[second, 50], [first, 51], [second, 52]], dtype=torch.int32, device=way[1])
    training.optimiser.catch_up(training.table, ids[:, 0])
    expected = before.clone()
    expected[[first, second]] *= due[[first, second]].exp().unsqueeze(-1)
    assert error(training.table.detach().cpu(), expected) < 2 * torch.finfo(torch.float32).eps
    owed = training.state["decayed"].cpu() != training.state["log_decay"]
    assert owed.nonzero().flatten().tolist() == others
    assert others


@needs_c
def test_what_c_does_not_take_goes_by_torch() -> None:
    def form_of(table: Tensor, lowering: str = "auto") -> type:
        return type(module._form(lowering, nn.Parameter(table)))

    assert form_of(torch.ones(4, 3)) is CRowAdam
    assert form_of(torch.ones(4, 3), "torch") is TorchRowAdam
    assert form_of(torch.ones(3, 4).t()) is TorchRowAdam
    assert form_of(torch.ones(4, 3).double()) is TorchRowAdam
    assert form_of(torch.ones(4, 3).bfloat16()) is TorchRowAdam


def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Training("torch", 3, 0.3).run(5).flushed()
    monkeypatch.setattr(module, "_built", lambda _: "no C compiler is on the path")
    say_once.cache_clear()
    is_there = reason_against("c") is None
    with pytest.warns(RuntimeWarning, match="no C compiler is on the path") if is_there else nullcontext():
        got = Training("auto", 3, 0.3).run(5).flushed()
    if is_there:
        with pytest.raises(KernelError, match="no C compiler"):
            Training("c", 3, 0.3).run(1)
    assert torch.equal(got, expected)


@each_way
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.99999)])
def test_counts_of_every_size_have_their_powers(way: Way, betas: tuple[float, float]) -> None:
    counts = torch.tensor([0, 1, 17_000, 2**21, 2**31 - 2], dtype=torch.int32)
    form, device = way
    table = nn.Parameter(torch.ones(len(counts), 3, device=device))
    optimiser = RowAdam([table], lr=0.1, betas=betas, lowering=form)
    rows = torch.arange(len(counts), device=device)
    for upstream in (torch.zeros(len(counts), 3), torch.linspace(-2, 3, 3 * len(counts)).view(-1, 3)):
        if optimiser.state[table]:
            optimiser.state[table]["count"].copy_(counts)
        table.grad = sparse(rows, upstream.to(device), len(counts))
        optimiser.step()
    state = {name: value.cpu() for name, value in optimiser.state[table].items()}
    n = (counts.long() + 1).double().unsqueeze(-1)
    assert torch.equal(state["count"].long(), counts.long() + 1)
    first, second = (state[k].double() / (1 - b**n) for k, b in zip(("mean", "square"), betas, strict=True))
    assert error(table.detach().cpu(), 1 - 0.1 * first / (second.sqrt() + 1e-8)) < 1e-6


@each_way
@pytest.mark.parametrize("forwards", [True, False])
def test_a_training_of_one_form_goes_on_in_torchs(way: Way, forwards: bool) -> None:
    """And back: the state dict of each is the other's, wherever the table lies."""
    form, device = way
    whole, first = (Training("torch", 5, 0.3).run(n) for n in (STEPS, 10))
    if forwards:
        first = Training(form, 5, 0.3, device=device).run(10)
    second = Training("torch", 5, 0.3) if forwards else Training(form, 5, 0.3, device=device)
    second.optimiser.load_state_dict(first.optimiser.state_dict())
    second.optimiser.param_groups[0]["lowering"] = "torch" if forwards else form
    second.draw, second.steps = first.draw, first.steps
    second.table.data.copy_(first.table.data)
    assert error(second.run(STEPS - 10).flushed(), whole.flushed().double()) < 8 * torch.finfo(torch.float32).eps


@pytest.mark.skipif(not INTERPRETS, reason="on the CPU Triton is interpreted")
def test_triton_leaves_out_a_row_outside_the_table() -> None:
    """A lookup has answered it by NaN; to refuse it the device would have to be waited for."""
    training, other = (Training("triton", 2, 0.3).run(1) for _ in range(2))
    training.optimiser.catch_up(training.table, torch.tensor([0, ROWS, -1]))
    other.optimiser.catch_up(other.table, torch.tensor([0]))
    training.table.grad = sparse(torch.tensor([0, ROWS]), torch.ones(2, 2))
    other.table.grad = sparse(torch.tensor([0]), torch.ones(1, 2))
    training.optimiser.step()
    other.optimiser.step()
    assert_same(training, other)


@once_interpreted
def test_the_interpreter_runs_all_of_the_above() -> None:
    passed, cpu_s = interpreted(__file__)
    assert passed > 10
    assert cpu_s < CPU_SECONDS

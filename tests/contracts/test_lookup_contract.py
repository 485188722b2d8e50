"""What gated lookups promise: parity with float64, rows that occur once each, no order of chance, the bits of torch.

C and torch are run on the CPU; Triton on a GPU (marked ``gpu``) and, where ``TRITON_INTERPRET=1`` is set, by its
interpreter: the last test runs this file so, in a process of its own, since Triton reads the variable when it is
imported.
"""

import itertools
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from defaults import defaults, each_default
from interpreted import INTERPRETS, each_kernel_way, interpreted, once_interpreted
from lowered import error, limit
from torch import Tensor

from layersearch.errors import BadInputError, KernelError
from layersearch.primitives.ctr import lookup as module
from layersearch.primitives.ctr.lookup import gated_lookup
from layersearch.primitives.ctr.table import FeatureTable
from layersearch.primitives.gates.row_adam import RowAdam
from layersearch.primitives.layers._lowered import reason_against
from layersearch.primitives.lowering.base import say_once

CPU_SECONDS = 20
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16

pytestmark = [pytest.mark.usefixtures("poisoned_memory")]


Way = tuple[str, str]
each_way = each_kernel_way("torch")


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Kernels leave what they do not cover to torch; here a test would pass by it and say nothing."""
    way = getattr(request.node, "callspec", None)
    if way is None or way.params.get("way", ("torch",))[0] == "torch":
        return
    if request.node.get_closest_marker("torch_allowed") is None:
        plain = module._by

        def asked(*arguments: object) -> str:
            by = plain(*arguments)  # type: ignore[arg-type]
            if arguments[1].dtype is not torch.float64 and by == "torch":  # type: ignore[attr-defined]
                pytest.fail("torch does the work of a kernel")
            return by

        monkeypatch.setattr(module, "_by", asked)


@dataclass
class Case:
    """A problem in float32 numbers that bfloat16 holds."""

    table: Tensor
    ids: Tensor
    gates: Tensor | None
    values: Tensor | None
    upstream: Tensor


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16().float()


FIELDS = 5
GATES = ("none", "lookup", "field", "value", "lookup and value")


def case(rows: int, columns: int, batch: int, gates: str = "lookup and value", skew: float = 4.0) -> Case:
    """``FIELDS`` fields of equal size, the first row of each that of unknown values, which every third lookup is of."""
    size = max(1, rows // FIELDS)
    drawing = torch.Generator().manual_seed(rows + batch)
    ids = (torch.rand(batch, FIELDS, generator=drawing) ** skew * size).long()
    ids[::3] = 0
    ids = (ids + torch.arange(FIELDS) * size).clamp_max(rows - 1)
    return Case(
        drawn(rows, columns, seed=1),
        ids,
        drawn(batch, FIELDS, seed=2) if "lookup" in gates else drawn(FIELDS, seed=3) if gates == "field" else None,
        drawn(rows, seed=4) if "value" in gates else None,
        drawn(batch, FIELDS, columns, seed=5),
    )


def results(c: Case, lowering: str, dtype: torch.dtype = FLOAT32, device: str = "cpu") -> dict[str, Tensor]:
    """Output and all gradients; a sparse one as ``rows of …`` and its values beside the dense form."""
    named = {"table": c.table, "gates": c.gates, "values": c.values}
    held = {n: t.to(device, dtype, copy=True).requires_grad_() for n, t in named.items() if t is not None}
    y = gated_lookup(held["table"], c.ids.to(device), held.get("gates"), held.get("values"), lowering=lowering)
    found: dict[str, Tensor] = {"y": y.detach()}
    for name, grad in zip(held, torch.autograd.grad(y, list(held.values()), c.upstream.to(y)), strict=True):
        if grad.is_sparse:
            assert grad.is_coalesced()
            found[f"rows of {name}"] = grad.indices()[0]
            found[f"sums of {name}"] = grad.values()
        else:
            found[name] = grad
    return found


def exact(c: Case) -> dict[str, Tensor]:
    """By other means: one-hot products in float64, differentiated by torch."""
    rows = len(c.table)
    table = c.table.double().requires_grad_()
    gates = None if c.gates is None else c.gates.double().requires_grad_()
    values = None if c.values is None else c.values.double().requires_grad_()
    chosen = torch.nn.functional.one_hot(c.ids, rows).double()
    y = chosen @ table
    if gates is not None:
        y = y * gates.expand(c.ids.shape).unsqueeze(-1)
    if values is not None:
        y = y * (chosen @ values).unsqueeze(-1)
    named = {n: t for n, t in (("table", table), ("gates", gates), ("values", values)) if t is not None}
    grads = torch.autograd.grad(y, list(named.values()), c.upstream.double())
    found = {"y": y.detach()}
    occur = torch.unique(c.ids)
    for name, grad in zip(named, grads, strict=True):
        if name == "gates":
            found[name] = grad
        else:
            found[f"rows of {name}"], found[f"sums of {name}"] = occur, grad[occur]
            assert not bool(grad.index_fill(0, occur, 0).any())
    return found


def assert_near(got: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith("rows"):
            assert torch.equal(got[name].cpu(), value)
        else:
            assert got[name].dtype is dtype
            assert got[name].shape == value.shape
            assert error(got[name], value) <= limit(0.0, dtype), name


@each_way
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("columns", [1, 5, 16])
def test_results_are_those_of_float64(way: Way, gates: str, columns: int) -> None:
    c = case(60, columns, 33, gates)
    assert_near(results(c, way[0], device=way[1]), exact(c), FLOAT32)


@each_way
@pytest.mark.parametrize(
    ("rows", "columns", "batch"),
    [(1, 3, 9), (7, 33, 1), (2000, 4, 64), (5, 2, 150)],
    ids=["one row of the table", "one row of the batch", "most rows do not occur", "each id many times"],
)
def test_odd_sizes(way: Way, rows: int, columns: int, batch: int) -> None:
    c = case(rows, columns, batch)
    assert_near(results(c, way[0], device=way[1]), exact(c), FLOAT32)


@each_way
def test_bfloat16_is_computed_in_float32(way: Way) -> None:
    """Sums of 100 numbers in bfloat16 would be wrong in the second digit."""
    if way[0] == "c":
        pytest.skip("lowering c is float32 alone")
    c = case(10, 6, 100)
    assert_near(results(c, way[0], BFLOAT16, way[1]), exact(c), BFLOAT16)


@each_way
def test_large_ids_are_sorted_by_all_their_digits(way: Way) -> None:
    rows = 2**23 + 3
    ids = torch.tensor([[rows - 1, 0, 2**22, 2047, 2048, rows - 1, 1, 2**22 + 2048]])
    table = torch.zeros(rows, 1, requires_grad=True, device=way[1])
    y = gated_lookup(table, ids.to(way[1]), lowering=way[0])
    (grad,) = torch.autograd.grad(y, table, torch.arange(1.0, 9.0).view(1, 8, 1).to(way[1]))
    assert grad.indices()[0].tolist() == [0, 1, 2047, 2048, 2**22, 2**22 + 2048, rows - 1]
    assert grad.values().flatten().tolist() == [2, 7, 4, 5, 3, 8, 7]


@each_way
@pytest.mark.torch_allowed
def test_an_empty_batch_gives_empty_rows(way: Way) -> None:
    for ids in (torch.zeros(0, 3, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64)):
        table = torch.ones(4, 2, device=way[1], requires_grad=True)
        gates = torch.ones(ids.shape, device=way[1], requires_grad=True)
        y = gated_lookup(table, ids.to(way[1]), gates, lowering=way[0])
        assert y.shape == (*ids.shape, 2)
        by_table, by_gates = torch.autograd.grad(y.sum(), [table, gates])
        assert by_table.is_sparse
        assert by_table._nnz() == 0
        assert by_gates.shape == ids.shape


@each_way
def test_equal_input_gives_equal_bits(way: Way) -> None:
    c = case(40, 7, 60)
    first, second = results(c, way[0], device=way[1]), results(c, way[0], device=way[1])
    assert all(torch.equal(first[name], second[name]) for name in first)


@each_way
@each_default
def test_the_default_dtype_and_device_do_not_matter(way: Way, dtype: torch.dtype, device: str | None) -> None:
    c = case(40, 7, 60)
    expected = results(c, way[0], device=way[1])
    with defaults(dtype, device):
        got = results(c, way[0], device=way[1])
    assert all(torch.equal(got[name], value) for name, value in expected.items())


@pytest.mark.skipif(INTERPRETS or reason_against("c") is not None, reason="no lowering c")
@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("columns", [1, 2, 5, 16, 17, 33])
def test_c_has_the_bits_of_torch(columns: int, gates: str, rounds: int) -> None:
    """A training does not depend on whether its machine has a compiler."""
    for round_ in range(rounds):
        c = case(300 + round_, columns, 200, gates)
        by_c, by_torch = results(c, "c"), results(c, "torch")
        assert all(torch.equal(by_c[name], by_torch[name]) for name in by_torch)


@pytest.mark.skipif(INTERPRETS or reason_against("c") is not None, reason="no lowering c")
def test_a_training_has_the_same_bits_by_c_and_torch() -> None:
    found = []
    for lowering in ("c", "torch"):
        table = FeatureTable(50, 5, lowering=lowering, generator=torch.Generator().manual_seed(0))
        optimiser = RowAdam([table.weight], lr=0.1, weight_decay=0.1, lowering=lowering)
        for step in range(5):
            c = case(50, 5, 40 + step, "lookup")
            optimiser.catch_up(table.weight, c.ids)
            optimiser.zero_grad()
            (table(c.ids, c.gates) * c.upstream).sum().backward()
            optimiser.step()
        optimiser.flush()
        found.append(table.weight.detach())
    assert torch.equal(found[0], found[1])


@each_way
def test_tensors_need_not_lie_in_order(way: Way) -> None:
    c = case(30, 6, 12)
    apart = Case(
        c.table.t().contiguous().t(),
        c.ids.t().contiguous().t(),
        None if c.gates is None else c.gates.t().contiguous().t(),
        None if c.values is None else torch.stack([c.values, c.values], 1)[:, 0],
        c.upstream.transpose(0, 2).contiguous().transpose(0, 2),
    )
    assert not apart.table.is_contiguous()
    assert_near(results(apart, way[0], device=way[1]), exact(c), FLOAT32)


@each_way
def test_only_what_is_asked_for_is_computed(way: Way) -> None:
    c = case(20, 3, 8)
    assert c.gates is not None
    assert c.values is not None
    expected = exact(c)
    for wanted in itertools.product((False, True), repeat=3):
        if not any(wanted):
            continue
        held = [
            t.to(way[1], copy=True).requires_grad_(w) for t, w in zip((c.table, c.gates, c.values), wanted, strict=True)
        ]
        y = gated_lookup(held[0], c.ids.to(way[1]), held[1], held[2], lowering=way[0])
        y.backward(c.upstream.to(way[1]))
        for name, tensor, w in zip(("sums of table", "gates", "sums of values"), held, wanted, strict=True):
            assert (tensor.grad is not None) == w
            if tensor.grad is not None:
                got = tensor.grad.coalesce().values() if tensor.grad.is_sparse else tensor.grad
                assert error(got, expected[name]) <= limit(0.0, FLOAT32)


@each_way
def test_nan_and_infinity_come_through(way: Way) -> None:
    c = case(20, 3, 8, "lookup")
    c.table[c.ids[0, 1], 1] = torch.nan
    c.upstream[1, 0, 2] = torch.inf
    got = results(c, way[0], device=way[1])
    assert bool(got["y"][c.ids.to(way[1]) == c.ids[0, 1].item()][:, 1].isnan().all())
    assert bool(got["gates"][0, 1].isnan())
    row = int((got["rows of table"] == c.ids[1, 0].item()).nonzero())
    assert not bool(got["sums of table"][row, 2].isfinite())
    assert bool(got["gates"][1, 0].isinf())


@each_way
def test_the_row_of_zeros_of_a_pruned_table_is_not_trained(way: Way) -> None:
    torch.manual_seed(0)
    whole = FeatureTable(10, 3, lowering=way[0])
    kept = torch.arange(10) % 2 == 0
    pruned = whole.pruned(kept).to(way[1])
    ids = torch.arange(10).repeat(3, 1).to(way[1])
    y = pruned(ids, torch.full((3, 10), 2.0, device=way[1]))
    assert torch.equal(y[0].cpu(), 2 * whole.weight.detach() * kept.unsqueeze(-1))
    y.sum().backward()
    assert pruned.weight.grad is not None
    assert pruned.weight.grad.coalesce().indices()[0].tolist() == [0, 1, 2, 3, 4]


@each_way
@pytest.mark.torch_allowed
def test_a_second_derivative_goes_by_torch(way: Way) -> None:
    """Penalties on gradients; the kernels have none of their own."""
    c = case(12, 3, 6)
    assert c.gates is not None
    found = []
    for lowering in (way[0], None):
        table, gates = c.table.to(way[1]).requires_grad_(), c.gates.to(way[1]).requires_grad_()
        ids = c.ids.to(way[1])
        y = table[ids] * gates.unsqueeze(-1) if lowering is None else gated_lookup(table, ids, gates, lowering=lowering)
        (slope,) = torch.autograd.grad(y.square().sum(), gates, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [table, gates]))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@each_way
@pytest.mark.torch_allowed
def test_float64_is_exact_to_its_own_rounding(way: Way) -> None:
    c = case(20, 5, 20)
    got, expected = results(c, way[0], torch.float64, way[1]), exact(c)
    for name, value in expected.items():
        assert error(got[name], value.double()) < 1e-14


@pytest.mark.skipif(INTERPRETS, reason="of no lowering")
def test_what_does_not_fit_is_said() -> None:
    table = torch.zeros(4, 2)
    with pytest.raises(BadInputError, match=r"ids must be in \[0, 4\), got 0 to 4"):
        gated_lookup(table, torch.tensor([0, 4]))
    with pytest.raises(BadInputError, match="got -1 to 3"):
        gated_lookup(table, torch.tensor([3, -1]))
    with pytest.raises(BadInputError, match="gates must expand"):
        gated_lookup(table, torch.tensor([[0, 1]]), torch.zeros(3))
    with pytest.raises(BadInputError, match=r"gates \[rows\]"):
        gated_lookup(table, torch.tensor([0]), None, torch.zeros(3))
    with pytest.raises(BadInputError, match="fortran"):
        FeatureTable(4, 2, lowering="fortran")


@pytest.mark.skipif(INTERPRETS, reason="of lowering c")
def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(columns: int) -> None:
        raise KernelError("no C compiler is on the path")

    c = case(20, 11, 8)
    expected = results(c, "torch")
    monkeypatch.setattr("layersearch.kernels.lookup.c.CLookup", none)
    module._built.cache_clear()
    say_once.cache_clear()
    is_there = reason_against("c") is None
    said = pytest.warns(RuntimeWarning, match="by the torch lowering.*no C compiler is on the path")
    try:
        with said if is_there else nullcontext():
            got = results(c, "auto")
        if is_there:
            with pytest.raises(KernelError, match="no C compiler"):
                results(c, "c")
    finally:
        module._built.cache_clear()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.skipif(INTERPRETS, reason="of no lowering")
def test_a_traced_lookup_is_torchs() -> None:
    c = case(20, 3, 8)
    torch._dynamo.reset()
    compiled = torch.compile(gated_lookup, backend="eager", fullgraph=True)
    got, expected = (look(c.table, c.ids, c.gates, c.values) for look in (compiled, gated_lookup))
    assert torch.equal(got, expected)


@once_interpreted
def test_the_interpreter_runs_all_of_the_above() -> None:
    passed, cpu_s = interpreted(__file__)
    assert passed > 25
    assert cpu_s < CPU_SECONDS

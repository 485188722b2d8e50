"""What every lowering promises: the numbers of the float64 oracle, whatever the shape, strides and mode.

Errors are multiples of those of eager float32; the limit is ``lowered.limit``. A lowering joins by a line in
``lowering_contract.UNDER_CONTRACT``. LAYERSEARCH_ROUNDS is the size of the sample: 20 random graphs a round (2 rounds,
as in CI: 40; 10 rounds: the 200 that stand for the whole space). ``--junitxml=… -o junit_family=xunit1`` records the
worst error of a test as a part of its limit, under the name ``of_limit``.
"""

import math
import re
from collections.abc import Callable

import pytest
import torch
from lowered import batch, oracle_of, results, truth, upstream
from lowering_contract import (
    FORMATS,
    KNOWN,
    N_SAMPLE,
    SOME_KNOWN,
    UNDER_CONTRACT,
    Make,
    Subject,
    check,
    laid_out,
    same,
    sample,
    subjects,
)

from layersearch.primitives.domain import FULL, Axes
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import LOWERINGS
from layersearch.primitives.op import OPS

Record = Callable[[str, object], None]
FLOAT32 = torch.float32
EVALUATED = range(0, N_SAMPLE, 1 if N_SAMPLE >= 200 else 2)
"""Eval mode is a build of its own: in CI every second graph."""
SHAPES = [
    (1, 8, 1, 1),  # one element per channel
    (4, 6, 1, 1),  # one pixel
    (1, 8, 4, 1),
    (1, 5, 9, 1),
    (2, 6, 3, 3),
    (2, 7, 2, 5),
    (1, 33, 5, 4),
    (3, 1, 4, 6),
    (2, 3, 40, 40),  # several tiles of rows
    (2, 272, 3, 7),  # more channels than a block, and few in the last one
]

every_dtype = pytest.mark.parametrize("subject", subjects(), indirect=True)
in_float32 = pytest.mark.parametrize("subject", subjects(FLOAT32), indirect=True)
known = pytest.mark.parametrize("name", KNOWN)
some_known = pytest.mark.parametrize("name", SOME_KNOWN)


def test_every_lowering_is_under_contract() -> None:
    assert {entry.name for entry in UNDER_CONTRACT} | {"reference"} == set(LOWERINGS)


def test_the_sample_covers_the_space() -> None:
    """Every op, every moment of a full-size value, and every axis set of a value that is small already."""
    moments: set[tuple[str, bool]] = set()
    ops: set[str] = set()
    for k in range(N_SAMPLE):
        graph, _ = sample(k)
        for node in (graph.nodes[i] for i in graph.active):
            ops.add(node.op)
            if node.op in OPS and (moment := OPS[node.op].moment) is not None:
                is_full = graph.domains[node.args[0]] == FULL
                moments.add((node.op if is_full else str(moment.axes), is_full))
    assert ops >= set(OPS)
    assert {op for op, is_full in moments if is_full} == {op for op, row in OPS.items() if row.moment is not None}
    assert {axes for axes, is_full in moments if not is_full} == set(Axes)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("k", range(N_SAMPLE))
@pytest.mark.parametrize("subject", subjects(torch.float64, FLOAT32, torch.bfloat16), indirect=True)
def test_random_graphs(subject: Subject, make: Make, k: int, record_property: Record) -> None:
    """Not in float16, whose range is too small for them."""
    graph, shape = sample(k)
    compare(subject, make, graph, shape, True, record_property)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("k", EVALUATED)
@pytest.mark.parametrize("subject", subjects(torch.float64, FLOAT32, torch.bfloat16), indirect=True)
def test_random_graphs_in_eval_mode(subject: Subject, make: Make, k: int, record_property: Record) -> None:
    graph, shape = sample(k)
    compare(subject, make, graph, shape, False, record_property)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@known
@every_dtype
def test_known_layers(subject: Subject, make: Make, name: str, training: bool, record_property: Record) -> None:
    compare(subject, make, KNOWN[name], (3, 8, 5, 3), training, record_property)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@known
@in_float32
def test_ragged_and_degenerate_shapes(
    subject: Subject, make: Make, name: str, shape: tuple[int, ...], record_property: Record
) -> None:
    compare(subject, make, KNOWN[name], shape, True, record_property)


def compare(
    subject: Subject, make: Make, graph: Graph, shape: tuple[int, ...], training: bool, record_property: Record
) -> None:
    """A step in both memory formats, which the output follows, and from a kernel the gradient of x as well."""
    held_in = FLOAT32 if subject.dtype is torch.float64 else subject.dtype
    expected = truth(graph, shape, training, held_in)
    # The deviation from a mean of one element is 0: gradients are differences of equal terms, 1/sqrt(eps) in size.
    floor = 1 / math.sqrt(1e-5) if shape[0] * shape[2] * shape[3] == 1 else 1e-6
    worst = []
    for memory_format in FORMATS:
        got = results(make(graph, shape[1], training), laid_out(subject.put(batch(shape)), memory_format))
        worst.append(check(got, expected, subject.dtype, floor))
        assert got["y"].dtype is got["x"].dtype is subject.dtype
        for key in ("y",) if subject.name == "torch" else ("y", "x"):
            assert got[key].is_contiguous(memory_format=memory_format), f"{key} is laid out as {got[key].stride()}"
    record_property("of_limit", max(worst))


@some_known
@in_float32
def test_strides_of_x_do_not_matter(subject: Subject, make: Make, name: str) -> None:
    x = subject.put(batch((4, 8, 6, 6)))
    flat = torch.cat([x.new_zeros(1), x.flatten()])
    views = {
        "sliced": x.repeat(1, 1, 1, 2)[..., :6],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "part of the channels": laid_out(x.repeat(1, 2, 1, 1), torch.channels_last)[:, :8],
        "every other": x.repeat_interleave(2, 0)[::2],
        "off the alignment": flat[1:].view(x.shape),
    }
    for view in views.values():
        assert torch.equal(view, x)
        check(results(make(KNOWN[name], 8), view), truth(KNOWN[name], (4, 8, 6, 6)), FLOAT32)
    one = x[:1, :, :1, :1].expand(4, 8, 6, 6)
    for key, value in results(make(KNOWN[name], 8), one.contiguous()).items():
        torch.testing.assert_close(results(make(KNOWN[name], 8), one)[key], value, rtol=1e-5, atol=1e-4)


@some_known
@in_float32
def test_strides_of_the_upstream_gradient_do_not_matter(subject: Subject, make: Make, name: str) -> None:
    shape = (4, 8, 6, 6)
    g = subject.put(upstream(shape))
    views = {
        "sliced": g.repeat(1, 1, 1, 2)[..., :6],
        "transposed": g.transpose(2, 3).contiguous().transpose(2, 3),
        "channels last": laid_out(g, torch.channels_last),
        "part of the channels": laid_out(g.repeat(1, 2, 1, 1), torch.channels_last)[:, :8],
    }
    for memory_format in FORMATS:
        x = laid_out(subject.put(batch(shape)), memory_format)
        for view in views.values():
            check(results(make(KNOWN[name], 8), x, view), truth(KNOWN[name], shape), FLOAT32)
        got = results(make(KNOWN[name], 8), x, g.new_ones(()).expand(shape))
        for key, value in results(make(KNOWN[name], 8), x, torch.ones_like(x)).items():
            torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-4)


@pytest.mark.torch_allowed
@pytest.mark.parametrize("shape", [(0, 8, 3, 3), (2, 8, 0, 3)], ids=str)
@known
@in_float32
def test_an_empty_batch_has_no_gradient_and_leaves_the_running_moments(
    subject: Subject, make: Make, name: str, shape: tuple[int, ...]
) -> None:
    """As torch.nn.BatchNorm2d does."""
    layer = make(KNOWN[name], 8)
    got = results(layer, subject.put(torch.zeros(shape)))
    assert got["y"].shape == got["x"].shape == shape
    assert all(bool((got[n] == 0).all()) for n, _ in layer.named_parameters())
    expected = oracle_of(KNOWN[name], 8).state_dict()
    assert all(torch.equal(b.cpu().double(), expected[n]) for n, b in layer.named_buffers())


@pytest.mark.torch_allowed
@some_known
@in_float32
def test_an_input_of_another_shape_is_refused(subject: Subject, make: Make, name: str) -> None:
    """One channel would be broadcast to eight without a word."""
    layer = make(KNOWN[name], 8)
    for shape in ((4, 1, 3, 3), (4, 9, 3, 3), (8, 3, 3), (4, 8), (2, 4, 8, 3, 3)):
        with pytest.raises(ValueError, match=re.escape(f"input must be [N, 8, H, W], got {list(shape)}")):
            layer(subject.put(torch.ones(shape)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("graph", [*KNOWN, *range(0, N_SAMPLE, 4)])
@in_float32
def test_what_is_not_finite_comes_through(subject: Subject, make: Make, graph: str | int, value: float) -> None:
    """Finite exactly where the oracle is; NaN where it has NaN because of NaN: inf·0 may stay inf if 0 was rounded."""
    of, shape = (KNOWN[graph], (3, 8, 5, 3)) if isinstance(graph, str) else sample(graph)
    for training in (True, False):
        x = batch(shape)
        x[0, 1, 1, 2] = value
        expected = oracle_of(of, shape[1]).train(training)(x).detach()
        for memory_format in FORMATS:
            y = make(of, shape[1], training)(laid_out(subject.put(x), memory_format)).detach().cpu()
            assert torch.equal(y.isfinite(), expected.isfinite())
            assert not math.isnan(value) or torch.equal(y.isnan(), expected.isnan())


@known
@in_float32
def test_reruns_are_equal_bit_for_bit(subject: Subject, make: Make, name: str) -> None:
    for memory_format in FORMATS:
        x = laid_out(subject.put(batch((3, 8, 9, 7))), memory_format)
        assert same(results(make(KNOWN[name], 8), x), results(make(KNOWN[name], 8), x))


@in_float32
def test_a_large_mean_does_not_spoil_the_variance(subject: Subject, make: Make) -> None:
    """A difference of squares would be off by 13 % here."""
    x = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0)) + 1000
    for memory_format in FORMATS:
        layer = make(KNOWN["bn-relu"], 4)
        before = layer.state_dict()["running_var"].clone().cpu().double()
        layer(laid_out(subject.put(x), memory_format))
        expected = x.double().var((0, 2, 3), unbiased=False) * 0.1 + before * 0.9
        torch.testing.assert_close(layer.state_dict()["running_var"].cpu().double(), expected, rtol=1e-5, atol=0)


@in_float32
def test_the_mean_of_a_large_plane_is_exact_to_many_digits(subject: Subject, make: Make) -> None:
    """Of equal numbers, whose sum is rounded the same way at every step: one float32 sum would be off by 1e-4."""
    values = torch.tensor([0.1, 0.3, 0.7, 1 / 3])
    x = values.view(1, 4, 1, 1).expand(1, 4, 301, 299)
    for memory_format in FORMATS:
        layer = make(KNOWN["bn-relu"], 4)
        layer.momentum = 1.0
        layer(laid_out(subject.put(x), memory_format))
        torch.testing.assert_close(layer.state_dict()["running_mean"].cpu(), values, rtol=5e-6, atol=0)

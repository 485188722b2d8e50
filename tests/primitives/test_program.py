"""Programs of graphs: pass counts, what is kept, formulas of op rows, keys."""

import subprocess
import sys

import pytest
import torch
from graphs import random_graphs

from layersearch.kernels.codegen.c import c_source
from layersearch.kernels.codegen.program import INSTRUCTIONS, Layout
from layersearch.primitives.canonical import canonical
from layersearch.primitives.domain import FULL, PER_CHANNEL, Domain
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering.program import lower
from layersearch.primitives.lowering.program_formula import apply
from layersearch.primitives.lowering.program_values import Values
from layersearch.primitives.op import OPS
from layersearch.spaces.evonorm.published import PUBLISHED

SCALAR = {
    "abs": torch.abs,
    "sign": torch.sign,
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "log": torch.log,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "maximum": torch.maximum,
    "share": lambda a, b: torch.where(a < b, 0.0, torch.where(a == b, 0.5, 1.0)),
    "away": lambda b, e: torch.where(b < 0, b - e, b + e),
}


def value(formula: str, **names: torch.Tensor) -> torch.Tensor:
    result = eval(formula, {"__builtins__": {}}, {**SCALAR, **names})
    assert isinstance(result, torch.Tensor)
    return result


@pytest.mark.parametrize("op", [name for name, row in OPS.items() if row.moment is None])
def test_formulas_of_a_row_agree_with_its_reference(op: str) -> None:
    """Value, and gradient under a random upstream gradient, ties and zeros included."""
    row = OPS[op]
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(200, dtype=torch.float64, generator=generator)
    numbers[:4] = torch.tensor([0.0, -0.0, 1.0, -1.0])
    a = numbers.clone().requires_grad_(True)
    b = torch.cat([numbers[:4], torch.randn(196, dtype=torch.float64, generator=generator)]).requires_grad_(True)
    args, eps = [a, b][: row.arity], torch.tensor(0.01, dtype=torch.float64)
    y = row.reference(*args, float(eps)) if row.guard else row.reference(*args)
    g = torch.randn(200, dtype=torch.float64, generator=generator)
    names = {"a": a, "b": b, "eps": eps, "y": y, "g": g}
    torch.testing.assert_close(value(row.scalar, a=a, b=b, eps=eps), y)
    for formula, expected in zip(row.adjoint, torch.autograd.grad(y, args, g, retain_graph=True), strict=True):
        torch.testing.assert_close(value(formula, **names).expand(200), expected)


@pytest.mark.parametrize("op", OPS)
def test_every_row_has_one_adjoint_per_argument(op: str) -> None:
    assert len(OPS[op].adjoint) == OPS[op].arity


def test_a_formula_holds_nothing_but_arithmetic() -> None:
    build = Values()
    for formula in ("a ** 2", "__import__('os')", "a.b", "c + 1", "abs(a, key=a)", "'text'"):
        with pytest.raises(ValueError, match="a formula holds"):
            apply(build, formula, {"a": build.x()})
    with pytest.raises(ValueError, match="maximum takes 2 arguments"):
        apply(build, "maximum(a)", {"a": build.x()})


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n != "frn-tlu"])
def test_known_layers_read_the_tensor_twice_each_way(name: str) -> None:
    program = lower(PUBLISHED[name])
    assert [len(program.forward.passes), len(program.backward.passes)] == [2, 2]


def test_a_pointwise_layer_reads_it_once() -> None:
    program = lower(Graph((Node("x"), Node("sigmoid", (0,)), Node("mul", (0, 1)))))
    assert len(program.forward.passes) == 1
    assert program.forward.results == ()


def test_eval_mode_reads_buffers_instead_of_the_batch() -> None:
    program = lower(PUBLISHED["bn-relu"], training=False)
    assert program.inputs[program.n_params :] == ("running_mean", "running_var")
    assert len(program.forward.passes) == 1
    assert program.moments == ()


def test_sums_that_differ_by_small_factors_are_one() -> None:
    build = Values()
    x, gain = build.x(), build.param(0)
    scaled = build.call("mul", build.call("neg", build.call("mul", x, gain)), build.param(1))
    build.total(scaled, PER_CHANNEL)
    build.total(x, PER_CHANNEL)
    assert sum(s.code == "plane_sum" for s in build.statements) == 1


def test_variance_of_what_does_not_vary_is_zero() -> None:
    build = Values()
    assert build.is_const(build.variance(build.param(0), Domain(0, 2, 0)), 0.0)
    assert build.domain(build.variance(build.x(), PER_CHANNEL)) == PER_CHANNEL
    assert build.domain(build.x()) == FULL


def test_no_op_name_reaches_the_kernels() -> None:
    """Instructions are the portable set of the program module, for every op of the space."""
    others = {"x", "g", "param", "given", "const", "size", "plane_sum", "plane_m2", "sum"}
    for graph in random_graphs(40, seed=3):
        program = lower(graph)
        for part in (program.forward, program.backward):
            assert {s.code for s in part.statements} <= {*INSTRUCTIONS, *others}


def test_key_and_source_are_equal_in_another_process() -> None:
    code = (
        "import hashlib; from layersearch.primitives.lowering.program import lower;"
        "from layersearch.kernels.codegen.c import c_source;"
        "from layersearch.spaces.evonorm.published import PUBLISHED;"
        "p = lower(PUBLISHED['evonorm-b0']).backward;"
        "print(p.key, hashlib.sha256(c_source({'f': p}).encode()).hexdigest())"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
        for environment in ({"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)} for seed in ("1", "2"))
    }
    assert len(said) == 1


def test_a_program_is_named_by_an_identifier() -> None:
    program = lower(canonical(PUBLISHED["bn-relu"])).forward
    with pytest.raises(ValueError, match="identifier"):
        c_source({"a; b": program})


def test_places_of_small_values_do_not_overlap() -> None:
    cells = [(True, True), (False, False), (False, True), (True, False), (True, True), (False, True)]
    layout = Layout(cells)
    n, channels = 3, 5
    taken: list[int] = []
    for i, (over_n, over_c) in enumerate(cells):
        start = layout.offset(i, n, channels)
        taken += range(start, start + (n if over_n else 1) * (channels if over_c else 1))
    assert sorted(taken) == list(range(layout.size(n, channels)))

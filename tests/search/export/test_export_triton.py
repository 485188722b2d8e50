"""Exported files with Triton kernels: what they say, how they start kernels, and that both ways to run them agree."""

import ast
import functools
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import random_graphs, reducing_graphs
from torch import nn

from layersearch.kernels.codegen._triton_load import interprets, why_no_triton
from layersearch.kernels.codegen._triton_shapes import Sizes, default_config, planned, work_floats
from layersearch.kernels.codegen.triton import triton_source
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.lowering.program import lower
from layersearch.search.export import FORMATS, ExportError, Subject, _triton_check
from layersearch.search.export import triton as triton_format
from layersearch.search.export._origin import class_name_of
from layersearch.search.export._triton_text import triton_text
from layersearch.search.export.command import run
from layersearch.spaces.evonorm.published import PUBLISHED

KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
REDUCING = {f"reducing-{k}": graph for k, graph in zip(range(8), reducing_graphs(5), strict=False)}
RANDOM = {f"random-{k}": canonical(graph) for k, graph in enumerate(random_graphs(12, seed=77))}
GRAPHS = {**KNOWN, **REDUCING, **RANDOM}
TINY = (((2, 4, 3, 2), 2),)

needs_triton = pytest.mark.skipif(why_no_triton() is not None, reason=str(why_no_triton()))

# Without triton: the file is read, and run as plain torch.
_BARE = """
import importlib.util, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("layersearch", "triton"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
spec = importlib.util.spec_from_file_location("norm", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
layer = module.Layer(4)
x = torch.ones(2, 4, 3, 3, requires_grad=True)
torch.compile(layer, backend="aot_eager")(x).sum().backward()
assert x.grad.shape == x.shape and layer.weight.grad is not None
"""

# Where kernels are interpreted: what a user does with the layer beside calling it.
_USED = """
import copy, importlib.util, sys
import torch
from torch.utils.checkpoint import checkpoint
spec = importlib.util.spec_from_file_location("norm", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert "layersearch" not in sys.modules
plain = module.Layer.__mro__[1]
by_plain = []
run_plain = plain.forward
plain.forward = lambda self, x: by_plain.append(1) or run_plain(self, x)

def gradients(layer, x, call=None):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = (layer if call is None else call)(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]

def close(a, b, tolerance=1e-4):
    for s, t in zip(a, b, strict=True):
        assert s.dtype == t.dtype
        assert float((s.double() - t.double()).norm()) <= tolerance * (1 + float(t.norm())), (s, t)

torch.manual_seed(0)
x = torch.randn(2, 4, 3, 5)
layer = module.Layer(4)
reference = plain(4)
assert list(layer.state_dict()) == list(reference.state_dict())
torch.nn.init.uniform_(layer.weight); torch.nn.init.uniform_(layer.bias)
reference.load_state_dict(layer.state_dict())
expected = gradients(reference, x)
by_plain.clear()
close(gradients(layer, x), expected)
close([b for b in layer.buffers()], [b for b in reference.buffers()])
assert not by_plain
again = gradients(layer, x)
assert all(torch.equal(s, t) for s, t in zip(again, gradients(layer, x)))                  # equal bits
other = copy.deepcopy(layer)
compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
close(gradients(other, x, compiled), expected)
close(gradients(layer, x, lambda x: checkpoint(layer, x, use_reentrant=False)), expected)
close(gradients(layer, x.transpose(2, 3).contiguous().transpose(2, 3)), expected)          # strides
close(gradients(layer, x.contiguous(memory_format=torch.channels_last)), expected)
part = x.repeat(1, 2, 1, 1).contiguous(memory_format=torch.channels_last)[:, :4]
close(gradients(layer, part), expected)
with torch.no_grad():
    close([layer(x)], [expected[0]])
for dtype in (torch.bfloat16, torch.float16):
    close(gradients(layer, x.to(dtype)), gradients(reference, x.to(dtype)), 2e-2)
assert by_plain == [1, 1] and not by_plain.clear()                                           # the reference's alone
with torch.autocast("cpu", dtype=torch.bfloat16):
    y = layer(torch.nn.Conv2d(4, 4, 1)(x))
assert y.dtype is torch.bfloat16 and not by_plain
half, plain_half = copy.deepcopy(layer).bfloat16(), copy.deepcopy(reference).bfloat16()
close(gradients(half, x.bfloat16()), gradients(plain_half, x.bfloat16()), 5e-2)
args = (x, [p.detach() for p in layer.parameters()], *eval(sys.argv[2]))
statistics = module._forward_op(*args)[1]
torch.library.opcheck(module._forward_op, args, test_utils=("test_schema", "test_faketensor"))
backward = (torch.ones_like(x), x, statistics, *args[1:])
torch.library.opcheck(module._backward_op, backward, test_utils=("test_schema", "test_faketensor"))

def penalty(layer):
    a = x.clone().requires_grad_()
    (d,) = torch.autograd.grad(layer(a).square().sum(), a, create_graph=True)
    return torch.autograd.grad(d.square().sum(), [a, *layer.parameters()], allow_unused=True, materialize_grads=True)

close(penalty(layer), penalty(reference), 1e-3)
by_plain.clear()
assert layer.double()(x.double()).dtype is torch.float64 and layer.float()(x[:0]).shape == (0, 4, 3, 5)
assert by_plain == [1, 1]
try:
    layer(torch.ones(2, 8, 3, 3))
except ValueError as error:
    assert "must be [N, 4, H, W], got [2, 8, 3, 3]" in str(error)
else:
    raise AssertionError("8 channels of a layer of 4")
"""


def subject(graph: Graph, name: str = "SomeNorm") -> Subject:
    return Subject(graph, name)


@functools.cache
def text_of(name: str) -> str:
    return triton_text(subject(GRAPHS[name]))


@functools.cache
def namespace_of(name: str) -> dict[str, Any]:
    """The file as it is where Triton is missing; ``start`` collects what would be started."""
    namespace: dict[str, Any] = {"__name__": "exported", "started": []}
    text = text_of(name).replace("    import triton\n", '    raise ImportError("triton")\n', 1)
    exec(compile(text, "exported.py", "exec"), namespace)

    def start(function: Any, blocks: Any, *tensors: torch.Tensor) -> None:
        taken = function.__code__.co_varnames[: function.__code__.co_argcount]
        numbers = {word: value for word, value in blocks.numbers.items() if word in taken}
        assert len(numbers) + len(tensors) == len(taken), (function.__name__, taken)
        namespace["started"].append((function, blocks.grid, blocks.warps, numbers, tensors))

    namespace["start"] = start
    return namespace


@pytest.mark.parametrize("name", KNOWN)
def test_a_file_is_plain_and_names_no_more_than_it_needs(name: str) -> None:
    text = text_of(name)
    tree = ast.parse(text)
    imports = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
               for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
    assert {str(word).partition(".")[0] for word in imports} == {
        "__future__",
        "collections",
        "typing",
        "torch",
        "triton",
    }
    assert "layersearch" not in text.replace(str(ast.get_docstring(tree, clean=False)), "")
    assert max(map(len, text.splitlines())) <= 120
    assert "\n\n\n\n" not in text
    assert re.search(r"\n +w\d+ = .*  # ", text)  # values are said in the words of the formula
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(set(defined) - {"_"}) == len([word for word in defined if word != "_"])
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert {word for word in defined if word not in called} <= {"_"} | {"Config"}
    assert class_name_of("blocks") == class_name_of("sizes") == "NormAct"
    assert namespace_of(name)["Layer"] is namespace_of(name)["SomeNorm"]


@pytest.mark.parametrize("name", GRAPHS)
def test_kernels_are_started_as_in_a_run(name: str) -> None:
    """The same kernels in the same order, with equal numbers, on arrays of the same sizes."""
    namespace = namespace_of(name)
    rng = random.Random(name)
    training, evaluation = lower(GRAPHS[name], training=True), lower(GRAPHS[name], training=False)
    modes = {"train_": training, "eval_": evaluation} if training.moments else {"": training}
    for mode, lowered in modes.items():
        for direction, program in (("forward", lowered.forward), ("backward", lowered.backward)):
            source = triton_source({direction: program})[direction]
            for _ in range(6):
                sizes = some_sizes(rng)
                expected = planned(source, sizes, lambda kernel, s=source, z=sizes: default_config(kernel, s, z))  # type: ignore[misc]
                x = torch.empty(0, device="meta")
                inputs = [torch.empty(0, device="meta") for _ in lowered.inputs]
                arrays = [torch.empty(0, device="meta") for _ in range(2 if direction == "forward" else 4)]
                namespace["started"].clear()
                namespace[f"{mode}{direction}"](namespace["Sizes"](*sizes), x, *arrays, inputs)
                assert len(namespace["started"]) == len(expected)
                for (function, grid, warps, numbers, tensors), made in zip(namespace["started"], expected, strict=True):
                    assert (grid, warps, numbers) == (made.grid, made.warps, made.numbers)
                    of = {"x_ptr": x, "work_ptr": None}
                    of |= {f"p{k}_ptr": tensor for k, tensor in enumerate(inputs)}
                    words = (
                        ("out_ptr", "results_ptr")
                        if direction == "forward"
                        else ("g_ptr", "given_ptr", "out_ptr", "results_ptr")
                    )
                    of |= dict(zip(words, arrays, strict=True))
                    for word, tensor in zip(made.kernel.arguments, tensors, strict=False):
                        if word == "work_ptr":
                            assert tensor.numel() >= work_floats(source, sizes, expected)
                        else:
                            assert tensor is of[word], (function.__name__, word)
                    own = ast.dump(_renamed(made.kernel.text))
                    assert ast.dump(_renamed(_source_of(name, function.__name__))) == own, function.__name__


def some_sizes(rng: random.Random) -> Sizes:
    channels = rng.choice([1, 3, 7, 8, 64, 96, 300])
    per_group = rng.choice([k for k in range(1, channels + 1) if channels % k == 0])
    pixels = rng.choice([1, 2, 15, 64, 196, 3136, 50176, 10**6])
    return Sizes(rng.choice([1, 2, 128]), channels, pixels, per_group, rng.choice([2, 4]), rng.random() < 0.5)


@functools.cache
def _sources(name: str) -> dict[str, str]:
    tree = ast.parse(text_of(name))
    return {node.name: ast.unparse(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


def _source_of(name: str, function: str) -> str:
    return _sources(name)[function]


def _renamed(text: str) -> ast.Module:
    """The body of the one function of a text, with pointers numbered by their place, and values named alike."""
    (function,) = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    places = {argument.arg: f"t{k}" for k, argument in enumerate(function.args.args)}
    body = function.body[1:] if ast.get_docstring(function) else function.body
    tree = ast.Module(body, [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = re.sub(r"^v(?=\d)", "w", places.get(node.id, node.id))
    return tree


def test_state_dicts_and_arguments_are_those_of_the_python_format(tmp_path: Path) -> None:
    s0, b0 = namespace_of("evonorm-s0")["Layer"], namespace_of("evonorm-b0")["Layer"]
    assert s0(12, groups=8).groups == 6
    assert b0(4, momentum=0.5).momentum == 0.5
    for name in KNOWN:
        layer, expected = namespace_of(name)["Layer"](8), build_layer(KNOWN[name], 8)
        assert list(layer.state_dict()) == list(expected.state_dict())
        x = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(layer(x), expected(x), rtol=0, atol=0)
        torch.testing.assert_close(layer.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_two_files_do_not_share_operators() -> None:
    names = [next(line for line in text_of(name).splitlines() if "::forward" in line) for name in KNOWN]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_a_file_runs_where_triton_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "norm.py"
    path.write_text(text_of("evonorm-b0"))
    subprocess.run([sys.executable, "-B", "-c", _BARE, str(path)], check=True, cwd=tmp_path)


@pytest.mark.parametrize("why", ["triton is not installed", None])
def test_what_was_not_checked_is_said(why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Path] = []
    monkeypatch.setattr(triton_format, "why_no_triton", lambda: why)
    monkeypatch.setattr(triton_format, "check_kernels", lambda _, path: checked.append(path) or 0.5)
    out = tmp_path / "b0.py"
    told = run(space="evonorm", genome="known:evonorm-b0", out=out, format="triton")
    assert (told["class"], told["format"], len(checked)) == ("EvoNormB0", "triton", why is None)
    assert told["max_error"] == (0.5 if why is None else pytest.approx(0.0, abs=1e-12))
    assert told["unchecked"] in told["check"]
    assert ("on a GPU" if why is None else str(why)) in told["unchecked"]
    assert [path.name for path in tmp_path.iterdir()] == ["b0.py"]
    assert "known:evonorm-b0 --format triton -o b0.py" in out.read_text()


@pytest.mark.parametrize(
    ("message", "right", "wrong"),
    [
        ("training must equal", "div1 = x / max1", "div1 = x / max1 + 1e-6"),
        ("state dict", "torch.zeros", "torch.ones"),
        ("run on its own", "import torch\n", ""),
    ],
)
def test_a_plain_class_that_is_wrong_is_an_error(
    message: str, right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of("evonorm-b0")
    assert right in text
    monkeypatch.setattr(triton_format, "triton_text", lambda _: text.replace(right, wrong))
    with pytest.raises(ExportError, match=message):
        FORMATS["triton"].write(subject(GRAPHS["evonorm-b0"]), tmp_path / "layer.py")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "right", "wrong"),
    [
        ("output in training", "w32 = w30 + w31", "w32 = w30 + w31 * 1.001"),
        ("gradient of x in training", "tl.store(dx_ptr + at, (w", "tl.store(dx_ptr + at, (1.001 * w"),
        ("buffer running_var in training", "[2 * n * c + 2 * c :]", "[2 * n * c + c :]"),
        ("must run in Triton's interpreter.*not used", "    if not _is_covered", "    if _is_covered"),
    ],
)
def test_kernels_that_are_wrong_are_an_error(
    message: str, right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_triton_check, "_SHAPES", TINY)
    text = text_of("evonorm-b0")
    assert right in text
    path = tmp_path / "layer.txt"
    path.write_text(text.replace(right, wrong))
    with pytest.raises(ExportError, match=message):
        _triton_check.check_kernels(subject(GRAPHS["evonorm-b0"]), path)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", ["evonorm-b0", "evonorm-s0", "reducing-0", "reducing-3", "random-0"])
def test_the_check_after_writing_passes(name: str, tmp_path: Path) -> None:
    assert FORMATS["triton"].write(subject(GRAPHS[name]), tmp_path / "layer.py") < 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["layer.py"]


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("evonorm-b0", "(True,)"), ("evonorm-s0", "(4,)"), ("frn-tlu", "()")])
def test_a_layer_is_used_as_any_other(name: str, settings: str, tmp_path: Path) -> None:
    path = tmp_path / "norm.py"
    path.write_text(text_of(name))
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-B", "-c", _USED, str(path), settings]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(interprets(), reason="kernels are interpreted here, not compiled")
@pytest.mark.parametrize("name", ["evonorm-b0", "evonorm-s0"])
def test_kernels_compile_for_a_gpu(name: str, tmp_path: Path) -> None:
    """As a launch would compile them: float32, 64 channels, images of 32 x 32 and of 256 x 256."""
    import importlib.util

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    path = tmp_path / "norm.py"
    path.write_text(text_of(name))
    spec = importlib.util.spec_from_file_location("exported_norm", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    started: list[tuple[Any, Any]] = []
    module.start = lambda function, blocks, *_: started.append((function, blocks))
    for pixels in (32 * 32, 256 * 256):
        x, sizes = torch.empty(0, device="meta"), module.Sizes(8, 64, pixels, 2, 4, False)
        inputs = [x] * (4 if name == "evonorm-b0" else 3)
        for mode in ("train_", "eval_") if name == "evonorm-b0" else ("",):
            n_params = 3 if mode == "train_" else len(inputs)
            getattr(module, f"{mode}forward")(sizes, x, x, x, inputs[:n_params])
            getattr(module, f"{mode}backward")(sizes, x, x, x, x, x, inputs[:n_params])
    for function, blocks in started:
        signature, constants = {}, {}
        for k, word in enumerate(function.arg_names):
            if word in blocks.numbers:
                is_constant = function.params[k].is_constexpr
                signature[word] = "constexpr" if is_constant else "i32"
                constants |= {(k,): blocks.numbers[word]} if is_constant else {}
            else:
                signature[word] = "*fp32"
        built = triton.compile(
            ASTSource(fn=function, signature=signature, constexprs=constants),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": blocks.warps, "enable_fp_fusion": True},
        )
        assert built.asm["cubin"]


def test_plain_and_fast_class_are_modules_of_their_own() -> None:
    namespace = namespace_of("bn-relu")
    assert issubclass(namespace["SomeNorm"], namespace["PlainSomeNorm"])
    assert issubclass(namespace["PlainSomeNorm"], nn.Module)
    assert repr(namespace["Layer"](3)) == "SomeNorm(3)"

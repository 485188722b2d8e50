"""Exported Python files: they run without layersearch and compute what was trained."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import random_graphs
from torch import nn

from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering import build_layer
from layersearch.primitives.running import running_moments
from layersearch.search.export import FORMATS, ExportError, Subject
from layersearch.search.export import python as python_format
from layersearch.search.export.python import python_text
from layersearch.spaces.evonorm.published import PUBLISHED

KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
RANDOM = {f"random-{k}": canonical(graph) for k, graph in enumerate(random_graphs(40, seed=23))}
GRAPHS = {**KNOWN, **RANDOM}

# Runs in a bare interpreter: loads every file, and answers outputs, buffers and state dicts as a torch file.
_CHILD = """
import importlib.util, pathlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "layersearch":
            raise ImportError("layersearch must not be needed")
sys.meta_path.insert(0, Refuse())
import torch
folder = pathlib.Path(sys.argv[1])
given = torch.load(folder / "given.pt", weights_only=True)
answers = {}
for path in sorted(folder.glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem.replace("-", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cls = getattr(module, sorted(set(module.__all__) - {"Layer"})[0])
    assert cls is module.Layer
    layer = cls(8).double()
    layer.load_state_dict(given[path.stem])
    answers[path.stem] = {"train": layer.train()(given["x"]).detach(), "state": dict(layer.state_dict())}
    answers[path.stem]["eval"] = layer.eval()(given["z"]).detach()
assert "layersearch" not in sys.modules
torch.save(answers, folder / "answers.pt")
"""


def subject(graph: Graph, **changes: Any) -> Subject:
    return Subject(graph, **{"class_name": "EvolvedNormAct", **changes})


def load(text: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "exported.py", "exec"), namespace)
    return namespace


def randomized(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.25)
    return layer


def batch(seed: int) -> torch.Tensor:
    return torch.randn(3, 8, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.slow
def test_files_run_without_layersearch_and_agree_with_the_reference(tmp_path: Path) -> None:
    """In a process that has neither the package nor its path; 50 layers, training and eval mode, state dicts."""
    layers = {name: randomized(build_layer(g, 8, lowering="reference").double()) for name, g in GRAPHS.items()}
    given = {"x": batch(1), "z": batch(2), **{name: dict(layer.state_dict()) for name, layer in layers.items()}}
    torch.save(given, tmp_path / "given.pt")
    for name, graph in GRAPHS.items():
        FORMATS["python"].write(subject(graph), tmp_path / f"{name}.py")
    packages = next(path for path in map(Path, torch.__path__)).parent
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(packages)!r})\n{_CHILD}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = torch.load(tmp_path / "answers.pt", weights_only=True)
    n_finite = 0
    for name, layer in layers.items():
        got = answers[name]
        expected = {"train": layer.train()(batch(1)).detach(), "state": dict(layer.state_dict())}
        expected["eval"] = layer.eval()(batch(2)).detach()
        assert list(got["state"]) == list(expected["state"]), name
        for key in ("train", "eval"):
            if bool(expected[key].isfinite().all()):
                n_finite += 1
                assert float((got[key] - expected[key]).norm() / (expected[key].norm() + 1e-6)) < 1e-9, (name, key)
        for key, value in expected["state"].items():
            if bool(value.isfinite().all()):
                torch.testing.assert_close(got["state"][key], value, rtol=1e-9, atol=1e-12)
    assert n_finite > len(GRAPHS)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_check_after_writing_passes(name: str, tmp_path: Path) -> None:
    error = FORMATS["python"].write(subject(GRAPHS[name]), tmp_path / "layer.py")
    assert error < (1e-13 if name in KNOWN else 1e-3)


@pytest.mark.parametrize("name", KNOWN)
def test_the_class_takes_over_what_the_searched_module_learned(name: str) -> None:
    trained = randomized(build_layer(KNOWN[name], 8))
    layer = load(python_text(subject(KNOWN[name])))["Layer"](8)
    assert layer.load_state_dict(trained.state_dict(), strict=True).missing_keys == []
    torch.testing.assert_close(layer.eval()(batch(1).float()), trained.eval()(batch(1).float()), rtol=0, atol=0)


@pytest.mark.parametrize("name", KNOWN)
def test_the_text_is_plain_and_straight(name: str) -> None:
    text = python_text(subject(KNOWN[name], class_name="SomeNorm"))
    tree = ast.parse(text)
    imports = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert imports == ["import torch", "from torch import Tensor, nn"]
    assert not any(isinstance(n, ast.For | ast.While) for n in ast.walk(tree))
    namespace = load(text)
    assert namespace["__all__"] == ["Layer", "SomeNorm"]
    assert namespace["Layer"] is namespace["SomeNorm"]
    assert namespace["Layer"].__doc__.startswith("y = γ·f(x) + β")
    docstring = ast.get_docstring(tree)
    assert docstring is not None
    assert "SomeNorm: a normalization-activation layer" in docstring
    assert "f(x) = " in docstring


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [n for n, graph in GRAPHS.items() if n in KNOWN or len(running_moments(graph)) > 1])
def test_torch_script_takes_the_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "layer.py"
    FORMATS["python"].write(subject(GRAPHS[name]), file)
    spec = importlib.util.spec_from_file_location(f"scripted_{tmp_path.name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plain = randomized(module.Layer(8))
    scripted = torch.jit.script(module.Layer(8))
    scripted.load_state_dict(plain.state_dict())
    for mode in (True, False):
        got = scripted.train(mode)(batch(1).float())
        torch.testing.assert_close(got, plain.train(mode)(batch(1).float()), equal_nan=True)


def test_groups_and_momentum_are_arguments_where_they_mean_something() -> None:
    s0 = load(python_text(subject(KNOWN["evonorm-s0"])))["Layer"]
    assert s0(12, groups=8).groups == 6
    assert s0(64).groups == 32
    b0 = load(python_text(subject(KNOWN["evonorm-b0"])))["Layer"](4, momentum=1.0)
    b0(torch.full((2, 4, 3, 3), 2.0))
    assert b0.running_var.tolist() == [0.0] * 4


_HOSTILE = [
    '"""\nimport os\nos.abort()\n"""',
    'ends with "',
    'ends with ""',
    "ends with \\",
    '\\"\\"\\" \\N{BULLET} \\u12 \\x',
    '""""""""',
    "\x00\x07\x1b[2J",
    "\ud800 lone",
    "x" * 100_000,
    "{braces} %s {0}",
    "‮right to left",
    "\r\nimport os",
    "tabs\tand\u2028separators",
]


@pytest.mark.parametrize("text", _HOSTILE, ids=range(len(_HOSTILE)))
@pytest.mark.parametrize("label", ["Origin", '"""\nLabel'])
def test_text_of_a_run_stays_inside_the_docstring(text: str, label: str, tmp_path: Path) -> None:
    facts = ((label, text), ("Numbers", f"a\n{text}\nb"), ("Last", text))
    path = tmp_path / "layer.py"
    FORMATS["python"].write(subject(KNOWN["frn-tlu"], facts=facts), path)
    clean = path.with_name("clean.py")
    FORMATS["python"].write(subject(KNOWN["frn-tlu"]), clean)
    written = path.read_text(encoding="utf-8")
    bodies = [ast.dump(ast.Module(ast.parse(t).body[1:], [])) for t in (written, clean.read_text(encoding="utf-8"))]
    assert bodies[0] == bodies[1]
    assert len(written) < 12_000
    assert all(c.isprintable() or c == "\n" for c in written)


def test_quotes_and_backslashes_come_through_readably() -> None:
    text = r'search evolve --run "a b" --set x=\d'
    docstring = ast.get_docstring(ast.parse(python_text(subject(KNOWN["bn-relu"], facts=(("Command", text),)))))
    assert docstring is not None
    assert f"Command: {text}" in docstring


def test_a_file_that_computes_something_else_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = python_text(subject(KNOWN["evonorm-b0"]))
    wrongs = {
        "training": right.replace("div1 = x / max1", "div1 = x / max1 + (1e-6 if self.training else 0)"),
        "eval mode": right.replace("div1 = x / max1", "div1 = x / max1 + (0 if self.training else 1e-6)"),
        "buffer": right.replace("self.momentum)", "self.momentum * 1.01)"),
        "state dict": right.replace("torch.zeros", "torch.ones"),
        "run on its own": right.replace("import torch\n", ""),
    }
    for message, wrong in wrongs.items():
        assert wrong != right
        monkeypatch.setattr(python_format, "python_text", lambda _, text=wrong: text)
        with pytest.raises(ExportError, match=message):
            FORMATS["python"].write(subject(KNOWN["evonorm-b0"]), tmp_path / "layer.py")


def test_a_layer_that_is_never_finite_is_refused(tmp_path: Path) -> None:
    nodes = (Node("x"), Node("const", value=1e300), Node("mul", (0, 1)), Node("abs", (2,)), Node("exp", (3,)))
    graph = canonical(Graph(nodes))
    with pytest.raises(ExportError, match="cannot be checked"):
        FORMATS["python"].write(subject(graph), tmp_path / "layer.py")


def test_formats_are_listed_by_name() -> None:
    assert {"onnx", "pt2", "python"} <= set(FORMATS)

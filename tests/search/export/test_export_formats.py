"""pt2 and onnx: written files are read back by other programs and compute the same."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from graphs import random_graphs

from layersearch.errors import BadInputError
from layersearch.primitives.canonical import canonical
from layersearch.primitives.lowering import build_layer
from layersearch.search.export import FORMATS, ExportError, Subject
from layersearch.search.export import onnx as onnx_format
from layersearch.search.export import pt2 as pt2_format
from layersearch.spaces.evonorm.published import PUBLISHED

RANDOM = {f"random-{k}": graph for k, graph in enumerate(random_graphs(5, seed=31))}
GRAPHS = {
    name: canonical(graph)
    for name, graph in {**PUBLISHED, **RANDOM}.items()
    if name in ("bn-relu", "gn-relu", "evonorm-b0", "evonorm-b1", "evonorm-s0", *RANDOM)
}


def subject(name: str, num_features: int = 64) -> Subject:
    return Subject(GRAPHS[name], "EvolvedNormAct", num_features=num_features)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_pt2_is_a_program_for_any_batch_and_image(name: str, tmp_path: Path) -> None:
    path = tmp_path / "layer.pt2"
    assert FORMATS["pt2"].write(subject(name), path) < (1e-2 if name in RANDOM else 2e-6)
    program = torch.export.load(path).module()
    layer = build_layer(GRAPHS[name], 64).eval()
    assert set(program.state_dict()) == set(layer.state_dict())
    for shape in ((1, 64, 3, 3), (7, 64, 10, 2)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
        torch.testing.assert_close(program(x), layer(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_onnx_runs_in_onnxruntime(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    path = tmp_path / "layer.onnx"
    assert FORMATS["onnx"].write(subject(name), path) < (1e-2 if name in RANDOM else 2e-6)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    layer = build_layer(GRAPHS[name], 64).eval()
    for shape in ((1, 64, 3, 3), (7, 64, 10, 2)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
        (y,) = session.run(None, {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), layer(x).detach(), rtol=1e-4, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["layer.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_a_program_that_computes_something_else_is_an_error(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
        pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    other = build_layer(canonical(PUBLISHED["evonorm-b2"]), 8).eval()
    module = {"pt2": pt2_format, "onnx": onnx_format}[form]
    monkeypatch.setattr(module, "example", lambda s: (other, torch.zeros(2, 8, 8, 6)))
    assert set(other.state_dict()) == set(build_layer(GRAPHS["evonorm-b1"], 8).state_dict())
    with pytest.raises(ExportError, match="values differ"):
        FORMATS[form].write(subject("evonorm-b1", 8), tmp_path / f"layer.{form}")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else SimpleNamespace())
    with pytest.raises(BadInputError, match=rf"needs the package {missing}, .*layersearch\[onnx\]"):
        FORMATS["onnx"].write(subject("bn-relu"), tmp_path / "layer.onnx")
    assert list(tmp_path.iterdir()) == []

"""Layers for scripts: by name, out of a run, as modules and as files."""

import copy
import dataclasses
import json
import multiprocessing
import pickle
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spawned import kind_and_output

import layersearch
from layersearch.errors import BadInputError, KernelError, StoreError, UnknownNameError
from layersearch.primitives.graph import Graph
from layersearch.primitives.graph_json import graph_to_json
from layersearch.primitives.lowering import LOWERINGS, available, build_layer, fastest
from layersearch.primitives.lowering.base import say_once
from layersearch.primitives.numerics import Numerics
from layersearch.search.candidate import Candidate, Finish, StageResult
from layersearch.search.lock import RunLock
from layersearch.search.store import Store
from layersearch.spaces.contracts import Outcome
from layersearch.spaces.evonorm.published import PUBLISHED, pad


def genome(name: str) -> dict[str, object]:
    return graph_to_json(pad(Graph(PUBLISHED[name].nodes, Numerics(groups=4)), 10))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Candidates 0 (evaluated), 1 (rejected) and 2 (evaluated, the better one)."""
    folder = tmp_path / "runs" / "evonorm-0001"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("space: evonorm\n")
    with Store(folder) as store:
        store.set_meta(
            run={"seed": 0},
            space={"name": "evonorm", "entry": "", "settings": {}},
            objectives=[{"name": "resnet", "maximize": True}],
            stages=[{"id": "fitness:resnet", "name": "fitness", "resumes": None}],
        )
        names = ("bn-relu", "frn-tlu", "evonorm-s0")
        store.asked([Candidate(i, i, "evolved", genome(name), str(i), str(i)) for i, name in enumerate(names)])
        for i, value in enumerate((0.5, 0.1, 0.75)):
            state = "rejected" if i == 1 else "evaluated"
            outcome = Outcome("passed", metrics={"train.resnet": value + 0.1}, fitness={"resnet": value})
            result = StageResult(i, "fitness:resnet", outcome)
            finish = Finish(state, fitness={} if i == 1 else {"resnet": value}, told=i)
            store.told(result, finish, 0.0)
    return folder


def test_a_known_layer_is_the_published_one() -> None:
    layer = layersearch.known("evonorm", "evonorm-b0")
    assert layer.genome == graph_to_json(PUBLISHED["evonorm-b0"])
    assert "std_instance(x)" in layer.formula
    assert r"\frac" in layer.latex
    assert layer.fitness == {}


def test_the_best_of_a_run_is_its_best_candidate(run_dir: Path) -> None:
    run = layersearch.load("evonorm-0001", run_dir.parent)
    assert len(run) == 2
    assert "interrupted, 2 evaluated" in repr(run)
    best = run.best()
    assert (best.name, best.fitness, best.metrics) == ("#2", {"resnet": 0.75}, {"train.resnet": 0.85})
    assert [layer.name for layer in run.candidates()] == [layer.name for layer in run] == ["#2", "#0"]
    assert run.candidate(1).genome == genome("frn-tlu")
    assert run.candidate(1).fitness == {}
    with pytest.raises(StoreError, match="got 9"):
        run.candidate(9)
    with pytest.raises(BadInputError, match=r"must be in \[0, 2\*\*63\), got -1"):
        run.candidate(-1)


def test_a_run_is_found_by_name_and_by_path(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = layersearch.load("evonorm-0001", run_dir.parent)
    assert layersearch.load(run_dir) == layersearch.load(f"{run_dir}/") == run
    monkeypatch.chdir(run_dir.parent.parent)
    assert layersearch.load("evonorm-0001").best() == run.best()
    monkeypatch.chdir(run_dir)
    assert layersearch.load(Path()) == run
    with pytest.raises(BadInputError, match=r"none named 'evonorm-0002'.*did you mean 'evonorm-0001'"):
        layersearch.load(Path("../evonorm-0002"))


def test_what_is_no_run_gets_a_remedy_for_scripts(run_dir: Path) -> None:
    (run_dir.parent / "file").touch()
    for arguments, says in [
        ((run_dir.parent,), "give the path of the folder of a run"),
        ((str(run_dir / "checkpoints"),), "give the path of the folder of a run"),
        (("other", run_dir.parent), "see search list, or give the folder that it is in as runs_dir"),
        (("other", run_dir.parent / "file"), "give the folder that it is in as runs_dir"),
        (("an other",), "letters, digits, .* give the folder that it is in as runs_dir"),
    ]:
        with pytest.raises(BadInputError, match=says) as caught:
            layersearch.load(*arguments)
        assert "--" not in str(caught.value)


def test_a_run_is_read_while_it_goes_on(run_dir: Path) -> None:
    run = layersearch.load(run_dir)
    with RunLock(run_dir), Store(run_dir) as store:
        store.set_meta(state="running")
        assert "running, 2 evaluated" in repr(run)
        store.asked([Candidate(3, 3, "evolved", genome("evonorm-b0"), "3", "3")])
        result = StageResult(3, "fitness:resnet", Outcome("passed", fitness={"resnet": 0.9}))
        store.told(result, Finish("evaluated", fitness={"resnet": 0.9}, told=3), 0.0)
        assert (run.best().name, len(run)) == ("#3", 3)
        store.set_meta(winner=0)
        assert run.best().name == "#0"
    (run_dir / "run.sqlite").unlink()
    assert "there is none at" in repr(run)


def test_layers_are_values(run_dir: Path) -> None:
    layer = layersearch.load(run_dir).best()
    assert {layer, layersearch.load(run_dir).best()} == {layer}
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert json.loads(json.dumps(layer.genome)) == layer.genome
    assert isinstance(layer, layersearch.Layer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.name = "mine"  # type: ignore[misc]


def test_a_run_with_nothing_evaluated_says_so(tmp_path: Path) -> None:
    (tmp_path / "young").mkdir()
    with Store(tmp_path / "young"):
        pass
    with pytest.raises(StoreError, match="young must have an evaluated candidate"):
        layersearch.load("young", tmp_path).best()
    with pytest.raises(BadInputError, match="did you mean 'young'"):
        layersearch.load("yung", tmp_path)


@pytest.mark.parametrize("lowering", ["auto", *(name for name, why in available().items() if why is None)])
def test_a_module_computes_what_the_genome_says_by_every_lowering(run_dir: Path, lowering: str) -> None:
    layer = layersearch.load("evonorm-0001", run_dir.parent).best()
    module = layer.module(8, lowering=lowering, groups=2)
    expected = build_layer(pad(PUBLISHED["evonorm-s0"], 10), 8, lowering="reference", groups=2)
    assert sorted(module.state_dict()) == sorted(expected.state_dict())
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x), expected(x), rtol=1e-4, atol=1e-4)


def test_auto_is_compiled_where_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    if available()["c"] is None and not torch.cuda.is_available():
        assert fastest() == "c"
        assert type(layersearch.known("evonorm", "bn-relu").module(4)).__name__ == "FusedLayer"
    monkeypatch.setenv("CC", "no-such-compiler")
    if not torch.cuda.is_available():
        say_once.cache_clear()
        with pytest.warns(RuntimeWarning, match="run by the torch lowering.*no-such-compiler"):
            assert fastest() == "torch"


def test_on_a_gpu_without_triton_auto_is_torch_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels in C, which could be built, would never run a tensor on the GPU."""
    compiled = {
        "c": dataclasses.replace(LOWERINGS["c"], why_unavailable=lambda: None, build=_must_not_be_built),
        "triton": dataclasses.replace(LOWERINGS["triton"], why_unavailable=lambda: "triton is not installed"),
    }
    for name, row in compiled.items():
        monkeypatch.setitem(LOWERINGS._rows, name, row)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    say_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="run by the torch lowering.*triton is not installed"):
        module = layersearch.known("evonorm", "bn-relu").module(4)
    assert type(module).__name__ == "Layer"


def _must_not_be_built(*_: object) -> torch.nn.Module:
    raise AssertionError("a kernel was built that tensors on the GPU never use")


def test_kernels_of_both_modes_are_there_before_the_first_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    if available()["c"] is not None:
        pytest.skip(f"no compiled lowering here: {available()['c']}")
    module = layersearch.known("evonorm", "bn-relu").module(4, lowering="c")
    assert module.training
    assert module.state_dict().keys() == {"weight", "bias", "v0", "v1", "running_mean", "running_var"}
    monkeypatch.setenv("CC", "no-such-compiler")
    x = torch.randn(2, 4, 3, 3)
    assert torch.isfinite(module(x)).all()
    assert torch.isfinite(module.eval()(x)).all()


def test_a_pickled_layer_is_run_by_torch_where_it_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    if available()["c"] is not None:
        pytest.skip(f"no compiled lowering here: {available()['c']}")
    layer = layersearch.known("evonorm", "evonorm-b0").module(4, lowering="c")
    x = torch.randn(2, 4, 3, 3)
    layer(x)
    layer.eval()
    written = pickle.dumps(layer)
    row = LOWERINGS["c"]
    with monkeypatch.context() as patch:
        patch.setitem(LOWERINGS._rows, "c", dataclasses.replace(row, build=_fails))
        with pytest.warns(RuntimeWarning, match="run by the torch lowering.*did not finish"):
            unfinished = pickle.loads(written)
    monkeypatch.setenv("CC", "no-such-compiler")
    say_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="run by the torch lowering.*no-such-compiler"):
        plain = pickle.loads(written)
    for other in (plain, unfinished, pickle.loads(pickle.dumps(plain))):
        assert (type(other).__name__, other.training) == ("Layer", False)
        torch.testing.assert_close(other(x), layer(x))
    assert type(copy.deepcopy(layer)) is type(layer)


def _fails(*_: object) -> torch.nn.Module:
    raise KernelError("the compiler did not finish")


@pytest.mark.slow
def test_layers_go_to_spawned_processes() -> None:
    layer, x = layersearch.known("evonorm", "evonorm-b0"), torch.randn(2, 4, 4, 4)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for lowering in ("torch", "auto"):
            norm = layer.module(4, lowering=lowering).eval()
            kind, y = pool.submit(kind_and_output, norm, x).result()
            assert kind == type(norm).__name__
            torch.testing.assert_close(torch.tensor(y), norm(x))


def test_integers_of_numpy_and_torch_are_numbers() -> None:
    module = layersearch.known("evonorm", "evonorm-s0").module(np.int64(6), lowering="torch", groups=np.int32(4))
    assert (type(module.num_features), module.groups) == (int, 3)
    network = layersearch.known("kan", "efficient-kan").module(torch.tensor(3), out_features=np.uint8(2))  # type: ignore[arg-type]
    assert network(torch.randn(4, 3)).shape == (4, 2)


def test_a_build_that_fails_is_an_error_only_for_a_lowering_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(
        LOWERINGS["c"], build=_fails, why_unavailable=lambda: None, devices=("cpu", "cuda"), build_seconds=lambda _: 0.0
    )
    monkeypatch.setitem(LOWERINGS._rows, "c", row)
    layer = layersearch.known("evonorm", "bn-relu")
    with pytest.raises(KernelError, match="did not finish"):
        layer.module(4, lowering="c")
    with pytest.warns(RuntimeWarning, match="run by the torch lowering.*did not finish"):
        module = layer.module(4)
    assert type(module).__name__ == "Layer"


def test_bad_requests_get_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'evonorm'"):
        layersearch.known("evonrm", "bn-relu")
    with pytest.raises(UnknownNameError, match="did you mean 'bn-relu'"):
        layersearch.known("evonorm", "bn-rlu")
    layer = layersearch.known("evonorm", "bn-relu")
    for bad in (0, -1, 2.5, True, "8", np.int64(0), np.float32(8), np.bool_(True), torch.tensor(8.0), None):
        with pytest.raises(BadInputError, match="num_features must be a whole number"):
            layer.module(bad)  # type: ignore[arg-type]
        if bad is not None:
            with pytest.raises(BadInputError, match="groups must be a whole number"):
                layer.module(8, groups=bad)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="lowering"):
        layer.module(8, lowering="fortran")
    assert "c" in LOWERINGS
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BadInputError, match="got 'c'"):
        layer.module(8, lowering="c")


def test_layers_are_exported_as_by_the_command(run_dir: Path, tmp_path: Path) -> None:
    report = layersearch.load("evonorm-0001", run_dir.parent).best().export(tmp_path / "best.py")
    assert report["genome"]["nodes"]
    assert "run evonorm-0001, candidate 2" in (tmp_path / "best.py").read_text()
    layersearch.known("evonorm", "evonorm-b0").export(tmp_path / "b0.py")
    assert "EvoNormB0" in executed((tmp_path / "b0.py").read_text())
    with pytest.raises(BadInputError, match="never overwrites"):
        layersearch.known("evonorm", "evonorm-b0").export(tmp_path / "b0.py")
    layersearch.known("evonorm", "evonorm-s0").export(str(tmp_path / "b0.py"), "python", force=True)
    assert "EvoNormS0" in executed((tmp_path / "b0.py").read_text())


@pytest.mark.parametrize("name", ["evonorm-b0", "evonorm-s0"])
def test_a_module_equals_the_layer_of_the_exported_file(name: str, tmp_path: Path) -> None:
    layer = layersearch.known("evonorm", name)
    layer.export(tmp_path / "layer.py")
    x = torch.randn(4, 8, 5, 3, generator=torch.Generator().manual_seed(0))
    for text in (layer.source(), (tmp_path / "layer.py").read_text()):
        exported = executed(text)["Layer"](8)
        for module, tolerance in ((layer.module(8, lowering="torch"), 0.0), (layer.module(8), 1e-5)):
            torch.testing.assert_close(module(x), exported(x), rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(module.eval()(x), exported.eval()(x), rtol=tolerance, atol=tolerance)
            exported = executed(text)["Layer"](8)


def test_the_source_of_a_candidate_says_where_it_is_from(run_dir: Path) -> None:
    layer = layersearch.load(run_dir).best()
    assert "run evonorm-0001, candidate 2" in layer.source()
    assert "Denominators move away from zero" in layer.source()
    assert "Denominators are not guarded" in layer.source(exact=True)


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, layersearch; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'pydantic')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in layersearch.__all__:
        assert getattr(layersearch, name) is not None


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## From Python\n.*?^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    namespace = executed(found[1])
    assert (tmp_path / "s0.py").is_file()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in namespace["model"].modules())


def executed(text: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "executed"}
    exec(compile(text, "executed", "exec"), namespace)
    return namespace

"""Layers for scripts: by name, out of a run, as modules and as files."""

from pathlib import Path

import pytest
import torch

import layersearch
from layersearch.errors import BadInputError, StoreError, UnknownNameError
from layersearch.primitives.graph import Graph
from layersearch.primitives.graph_json import graph_to_json
from layersearch.primitives.lowering import LOWERINGS, available, build_layer, fastest
from layersearch.primitives.numerics import Numerics
from layersearch.search.candidate import Candidate, Finish, StageResult
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
            result = StageResult(i, "fitness:resnet", Outcome("passed", fitness={"resnet": value}))
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
    assert "2 evaluated" in repr(run)
    best = run.best()
    assert (best.name, best.fitness) == ("#2", {"resnet": 0.75})
    assert [layer.name for layer in run] == ["#2", "#0"]
    assert run.candidate(1).genome == genome("frn-tlu")
    assert layersearch.load(run_dir).best() == best
    with pytest.raises(StoreError, match="got 9"):
        run.candidate(9)


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
        assert fastest() == "torch"


def test_bad_requests_get_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'evonorm'"):
        layersearch.known("evonrm", "bn-relu")
    with pytest.raises(UnknownNameError, match="did you mean 'bn-relu'"):
        layersearch.known("evonorm", "bn-rlu")
    layer = layersearch.known("evonorm", "bn-relu")
    for bad in (0, -1, 2.5, True, "8"):
        with pytest.raises(BadInputError, match="num_features must be a whole number"):
            layer.module(bad)  # type: ignore[arg-type]
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
    namespace: dict[str, object] = {"__name__": "b0"}
    exec((tmp_path / "b0.py").read_text(), namespace)
    assert "EvoNormB0" in namespace

"""search read and layersearch.read: from a candidate of a run, or from layers, to functions, formula and picture."""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from planted import planted_layer
from safetensors.torch import save_file

import layersearch
from layersearch.errors import BadInputError
from layersearch.primitives import KANLinear, MixedKANLinear
from layersearch.search.candidate import Candidate, Finish, StageResult
from layersearch.search.cli import main
from layersearch.search.reading import FILES, _print, _StepLines
from layersearch.search.store import Store
from layersearch.spaces.contracts import JsonObject, Outcome
from layersearch.spaces.kan.export import trained
from layersearch.spaces.kan.genome import make, to_json
from layersearch.spaces.kan.published import mlp_of
from layersearch.spaces.kan.settings import effective
from layersearch.spaces.skan.export import trained as trained_skan
from layersearch.spaces.skan.genome import make as make_skan
from layersearch.spaces.skan.genome import to_json as to_json_skan
from layersearch.spaces.skan.settings import effective as effective_skan
from layersearch.spaces.tasks.regression import load_regression

TINY = {
    "task.points": 200, "task.test_points": 50, "task.quality_steps": 2, "task.fitness_steps": 4,
    "task.rerank_steps": 40,
}  # fmt: skip


SELECTING = make_skan({"bspline": {"grid": 5}, "fourier": {"grid": 2}}, base="none", pruning="fit", hidden=(2,))


def store(folder: Path, space: str, genomes: list[JsonObject], settings: JsonObject) -> None:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(f"space: {space}\n")
    with Store(folder) as made:
        made.set_meta(
            run={"seed": 0},
            space={"name": space, "entry": "", "settings": settings},
            objectives=[{"name": "rmse", "maximize": False}],
            stages=[{"id": "fitness", "name": "fitness", "resumes": None}],
        )
        made.asked([Candidate(i, i, "evolved", genome, str(i), str(i)) for i, genome in enumerate(genomes)])
        for i in range(len(genomes)):
            outcome = Outcome("passed", fitness={"rmse": 0.1 * (i + 1)})
            made.told(
                StageResult(i, "fitness", outcome), Finish("evaluated", fitness=dict(outcome.fitness), told=i), 0.0
            )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """kan-0001: 0 a small network, 1 a linear one, 2 one with many edges, 3 a small one; evonorm-0001 has layers.

    skan-0001: 0 a small network that selects, 1 one with many edges, 2 a small one of kan, 3 a linear one.
    """
    runs = tmp_path / "runs"
    settings = effective(None, "fn:f1", None, "smoke", TINY)
    small = make("chebyshev", {"degree": 4}, base="none", domain="tanh", hidden=(2,))
    store(
        runs / "kan-0001",
        "kan",
        [to_json(g) for g in (small, mlp_of(30, 2, 1), *map(small.with_widths, ((170,), (3,))))],
        settings,
    )
    store(runs / "skan-0001", "skan", [to_json_skan(SELECTING), to_json_skan(SELECTING.with_widths((170,))),
        to_json(small), to_json(mlp_of(30, 2, 1))], effective_skan(None, "fn:f1", None, "smoke", TINY))  # fmt: skip
    store(runs / "images", "kan", [layersearch.known("kan", "kat-vit").genome], {})
    store(runs / "sconv", "skan", [layersearch.known("skan", "sconvkan").genome], {})
    known = layersearch.known("evonorm", "bn-relu").genome
    store(runs / "evonorm-0001", "evonorm", [known], {})
    return runs


@pytest.mark.slow
def test_a_candidate_of_a_run_is_read_and_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "read"
    arguments = ["read", "kan-0001", "--runs-dir", str(runs), "-o", str(out), "--r2", "0.9"]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == list(FILES)
    assert told["widths"] == [2, 2, 1]
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    measured = trained(to_json(make("chebyshev", {"degree": 4}, base="none", domain="tanh", hidden=(2,))),
                       effective(None, "fn:f1", None, "smoke", TINY), 0)[1]  # fmt: skip
    assert told["errors"]["network"] == pytest.approx(measured["rmse"], rel=0.5)  # validation there, hold-out here
    assert json.loads((out / "reading.json").read_text())["formula"] == told["formula"]
    assert (out / "formula.txt").read_text() == told["formula"] + "\n"
    assert r"\begin{aligned}" in (out / "formula.tex").read_text()
    ElementTree.parse(out / "network.svg")

    assert main(arguments) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*arguments, "--force", "--no-refit"]) == 0
    shown = capsys.readouterr().out
    assert "kan-0001, candidate best: KAN" in shown
    assert "error on validation data, in deviations of the target: network " in shown
    assert "x1 → h1_1" in shown
    assert "wrote network.svg, formula.txt, formula.tex, reading.json" in shown


def test_progress_is_said_on_stderr(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layersearch.search.reading.LINE_S", math.inf)
    assert main(["read", "kan-0001", "--runs-dir", str(runs), "--r2", "0.9", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["run"] == "kan-0001"
    lines = err.splitlines()
    assert lines[:2] == ["kan-0001: training", "kan-0001: pruning"]
    assert re.fullmatch(r"kan-0001: functions, 0 of [1-6] edges?", lines[2])
    assert lines[3:] == ["kan-0001: constants", "kan-0001: formula"]


def test_a_long_step_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, now = _StepLines("a"), 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for done in range(7):
        lines("functions", done, 7)
        now += 4
    lines("formula", 0, 0)
    assert capsys.readouterr().err.splitlines() == [
        "a: functions, 0 of 7 edges",
        "a: functions, 3 of 7 edges",
        "a: functions, 6 of 7 edges",
        "a: formula",
    ]


def test_the_formula_is_what_was_measured(runs: Path) -> None:
    reading = layersearch.read("kan-0001", runs_dir=runs, limit=0.9)
    assert reading.equations is not None
    data = load_regression("fn:f1")
    at = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    error = np.sqrt(((reading.equations(at)[:, 0] - at[:, 0] * at[:, 1]) ** 2).mean()) / data.train_y.std()
    assert error == pytest.approx(reading.errors["formula"], rel=0.3)


@pytest.mark.slow
def test_weights_of_an_export_are_read_as_they_are(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.py"
    assert main(["export", "kan-0001", "--runs-dir", str(runs), "-o", str(out), "--weights"]) == 0
    anew = layersearch.read(runs / "kan-0001")
    for run in (layersearch.load("kan-0001", runs), layersearch.load("kan-0001", runs).best()):
        from_file = layersearch.read(run, weights=out.with_suffix(".safetensors"))
        assert from_file.errors == anew.errors
    with pytest.raises(BadInputError, match="is of another"):
        layersearch.read("kan-0001", runs_dir=runs, candidate="3", weights=out.with_suffix(".safetensors"))
    with pytest.raises(BadInputError, match="search export --weights"):
        layersearch.read("kan-0001", runs_dir=runs, weights=out)


@pytest.mark.slow
def test_a_network_that_selected_is_read_with_what_its_nodes_chose(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = effective_skan(None, "fn:f1", None, "smoke", TINY)
    state, measured, selection = trained_skan(to_json_skan(SELECTING), settings, 0)
    file, out = tmp_path / "net.safetensors", tmp_path / "read"
    save_file(state, file)
    arguments = ["read", "skan-0001", "--runs-dir", str(runs), "--r2", "0.9"]
    assert main([*arguments, "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert selection is not None
    assert told["bases"] == selection["layers"]
    assert told["errors"]["network"] == pytest.approx(measured["rmse"], rel=0.5)  # validation there, hold-out here
    assert {edge["basis"] for edge in told["edges"]} == {name for own in selection["layers"] for name in own}
    ElementTree.parse(out / "network.svg")

    assert main([*arguments, "--weights", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["edges"] == told["edges"]
    save_file(state | {"layers.0.choice": torch.tensor([0, 9])}, file)
    assert main([*arguments, "--weights", str(file)]) == 2
    assert "is of another" in capsys.readouterr().err


def test_what_the_nodes_chose_is_shown_where_it_differs(capsys: pytest.CaptureFixture[str]) -> None:
    layer = MixedKANLinear(3, 1, ("bspline", "rbf"), (1, 0, 1))
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    _print(layersearch.read(layer, x), "a title")
    assert "bases of layer 1: bspline x2 | rbf x1, x3" in capsys.readouterr().out
    _print(layersearch.read(KANLinear(3, 1), x), "a title")
    assert "basis of all nodes: chebyshev" in capsys.readouterr().out


@pytest.mark.slow
def test_a_baseline_of_one_basis_is_read_as_in_kan(runs: Path) -> None:
    reading = layersearch.read("skan-0001", runs_dir=runs, candidate="2", limit=0.9)
    assert reading.bases == (("chebyshev",) * 2,) * 2
    assert reading.errors == layersearch.read("kan-0001", runs_dir=runs, limit=0.9).errors


def test_layers_are_read_by_scripts() -> None:
    layer = planted_layer(2, 1, {(0, 0): torch.exp, (0, 1): torch.square})
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert layersearch.read(layer, x).formula == "y = x2**2 + exp(x1)"
    assert layersearch.read([layer], x, names=["t", "v"]).formula == "y = v**2 + exp(t)"
    for wrong, sentence in (
        ({"what": layer}, "no x was given"),
        ({"what": layer, "x": x, "weights": "w.safetensors"}, "weights belong to a run"),
        ({"what": "kan-0001", "x": x}, "leave them out"),
        ({"what": layersearch.known("kan", "kat")}, "must be of a run"),
        ({"what": layer, "x": x[:49]}, r"x must be \[at least 50, 2\], got \[49, 2\]"),
    ):
        with pytest.raises(BadInputError, match=sentence):
            layersearch.read(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evonorm-0001"], "must be of the space kan or skan, got one of evonorm; read another run"),
        (["kan-0001", "--candidate", "1"], "a linear one (mlp) has none"),
        (["images"], "one of images has norms, pooling or attention between them; read a run on a function"),
        (["sconv"], "one of images has norms, pooling or attention between them; read a run on a function"),
        (["skan-0001", "--candidate", "1"], "at most 500 edges, got 510"),
        (["skan-0001", "--candidate", "3"], "a linear one (mlp) has none"),
        (["kan-0001", "--candidate", "2"], "at most 500 edges, got 510"),
        (["kan-0001", "--candidate", "7"], "got 7"),
        (["kan-0002"], "did you mean 'kan-0001'"),
        (["kan-0001", "--r2", "1.5"], "--r2 must be a number in [0, 1]"),
        (["kan-0001", "--r2", "0"], "the limit of R²"),
        (["kan-0001", "--tolerance", "-1"], "--tolerance must be a number in [0, 10]"),
        (["kan-0001", "--weights", "none.safetensors"], "weights must be a .safetensors file"),
        (["kan-0001", "-o", "runs/evonorm-0001/recipe.yaml"], "goes to a folder"),
        (["kan-0001", "-o", "no/such"], "folder of the output must exist"),
        pytest.param(
            ["kan-0001", "-o", "/proc/read"],
            "must be one that can be made, but /proc/read is not",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc"),
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[Any],
    sentence: str,
) -> None:
    monkeypatch.chdir(runs.parent)
    before = files()
    assert main(["read", *arguments]) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert files() == before


def files() -> list[Path]:
    return sorted(path for path in Path().rglob("*") if not path.name.endswith(("-shm", "-wal")))  # SQLite's own

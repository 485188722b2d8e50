"""search on the skan space, from the command to a file that runs without layersearch."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from alone import alone

from layersearch.search.cli import main
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.tasks.regression import load_regression

TINY = [
    "task.points=200", "task.test_points=300", "task.quality_steps=5", "task.fitness_steps=20", "task.rerank_steps=30",
    "network.max_depth=1", "network.max_width=6", "network.reference=[6]", "funnel.rerank_seeds=2",
    "funnel.quality_rmse=50", "pool.bases=[bspline,chebyshev,piecewise_linear,rbf]",
]  # fmt: skip


def tiny(command: str, runs: Path, data: str, *more: str) -> int:
    sets = [word for pair in TINY for word in ("--set", pair)]
    run = ["--runs-dir", str(runs), "--workers", "1", "--device", "cpu", "--evaluations", "4", "--population", "8"]
    return main([command, "--space", "skan", "--data", data, *run, *sets, *more])


@pytest.mark.slow
def test_from_a_search_to_a_file_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("evolve", tmp_path, "fn:r1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert {b["name"] for b in found["baselines"]} == {
        "bspline", "chebyshev", "piecewise_linear", "rbf", "efficient-kan", "mlp", "mlp-most",
    }  # fmt: skip
    assert all(b["selection"] is None and "selected" not in b for b in found["baselines"])
    winner = next(e for e in found["best"] if e["candidate"] == found["winner"])
    names = winner["selection"]["layers"]
    assert [len(layer) for layer in names] == [2, *winner["genome"]["hidden"]]
    assert main(["show", "skan-0001", "--runs-dir", str(tmp_path)]) == 0
    assert f"selected: {winner['selected']}" in " ".join(capsys.readouterr().out.split())

    out = tmp_path / "net.py"
    export = ["export", "skan-0001", "--runs-dir", str(tmp_path), "-o", str(out), "--weights", "--json"]
    assert main(export) == 0
    told = json.loads(capsys.readouterr().out)["export"]
    assert told["max_error"] < 1e-9
    with StoreReader(tmp_path / "skan-0001") as reader:
        measured = {r.stage: r.outcome for r in reader.results(found["winner"])}
    assert told["measured"]["rmse"] == measured["rerank:0"].fitness["rmse"]
    assert measured["rerank:0"].selection == winner["selection"]
    plain = tmp_path / "plain.py"
    assert main(["export", "skan-0001", "--runs-dir", str(tmp_path), "-o", str(plain)]) == 0
    bodies = [path.read_text().split('"""', 2)[2] for path in (out, plain)]
    assert bodies[0] == bodies[1]

    data = load_regression("fn:r1")
    np.savez(tmp_path / "points.npz", x=data.test_x, y=data.test_y)
    code = (
        "import sys, torch, numpy as np\n"
        "from net import Model\n"
        "assert not any(name.startswith('layersearch') for name in sys.modules)\n"
        "d = np.load('points.npz')\n"
        "y = Model.load('net.safetensors')(torch.tensor(d['x'], dtype=torch.float32)).detach().numpy()[:, 0]\n"
        "print(np.sqrt(((y - d['y'])**2).mean()) / d['y'].std())\n"
    )
    said = alone(code, tmp_path)
    assert float(said) == pytest.approx(measured["test:0"].fitness["rmse"], rel=0.2)


@pytest.mark.slow
def test_tune_and_what_a_store_of_before_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("tune", tmp_path, "feynman:I.6.2", "--rerank-top", "0") == 0
    assert "selected: " in capsys.readouterr().out
    store = tmp_path / "skan-0001" / "run.sqlite"
    with sqlite3.connect(store) as connection:
        connection.execute("DROP TABLE selections")
        connection.execute("PRAGMA user_version = 2")
    assert main(["show", "skan-0001", "--runs-dir", str(tmp_path)]) == 0
    assert "selected: " not in capsys.readouterr().out
    assert main(["export", "skan-0001", "--runs-dir", str(tmp_path), "-o", str(tmp_path / "x.py")]) == 2
    assert "no training of this genome is recorded" in capsys.readouterr().err
    assert not (tmp_path / "x.py").exists()


@pytest.mark.slow
@pytest.mark.data
def test_a_table(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("evolve", tmp_path, "uci:concrete", "--data-dir", str(data_dir), "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "pool.bases=[bsplin,rbf]"], "did you mean 'bspline'"),
        (["--set", "pool.bases=[rbf]"], "at least 2 bases, got rbf"),
        (["--set", "pool.shares=[0.2,0.3,0.6]"], "must add to 1, got 0.2 + 0.3 + 0.6 = 1.1"),
        (["--set", "pool.gates=[hard]"], "unknown kind of gates 'hard'"),
        (["--data", "cifar11"], "unknown data set 'cifar11'"),
        (["--series", "b"], "series must be left out"),
        (["--lowering", "c"], "unknown lowering of the space skan 'c'"),
        (["--seed-layers", "kat"], "unknown design 'kat'"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["evolve", "--space", "skan", "--runs-dir", str(tmp_path), *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_designs_are_built_by_name_and_exported_from_runs_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    import layersearch
    from layersearch.errors import BadInputError

    design = layersearch.known("skan", "skan")
    assert "one of bspline(grid=5, order=3) | chebyshev(degree=4)" in design.formula
    assert "in" in design.latex
    module = design.module(5, out_features=2)
    assert module(torch.zeros(7, 5)).shape == (7, 2)
    assert module[0].pruned().selected() == ("bspline",) * 5
    for arguments, sentence in (({"lowering": "c"}, "torch"), ({"groups": 2}, "groups")):
        with pytest.raises(BadInputError, match=sentence):
            design.module(5, out_features=1, **arguments)  # type: ignore[arg-type]
    out = tmp_path / "x.py"
    for genome, sentence in (("known:skan", "name an evaluated candidate of a run"), ("known:skn", "did you mean")):
        assert main(["export", "--space", "skan", "--genome", genome, "-o", str(out)]) == 2
        assert sentence in capsys.readouterr().err
    assert not out.exists()

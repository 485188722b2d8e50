"""search on the kan space, from the command to a file that runs without layersearch."""

import json
from pathlib import Path

import numpy as np
import pytest
from alone import alone

from layersearch.search.cli import main
from layersearch.spaces.tasks.regression import load_regression

TINY = [
    "task.points=200", "task.test_points=300", "task.quality_steps=5", "task.fitness_steps=20", "task.rerank_steps=30",
    "network.max_depth=1", "network.max_width=6", "network.reference=[6]", "funnel.rerank_seeds=2",
]  # fmt: skip


def tiny(command: str, runs: Path, data: str, *more: str) -> int:
    sets = [word for pair in TINY for word in ("--set", pair)]
    run = ["--runs-dir", str(runs), "--workers", "1", "--device", "cpu", "--evaluations", "4", "--population", "8"]
    return main([command, "--space", "kan", "--data", data, *run, *sets, *more])


@pytest.mark.slow
def test_from_a_search_to_a_file_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("evolve", tmp_path, "fn:r1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert [o["name"] for o in found["objectives"]] == ["rmse", "parameters"]
    errors = {e["candidate"]: e["rerank"]["rmse"]["mean"] for e in found["best"] if e["rerank"]}
    assert found["winner"] == min(errors, key=lambda n: errors[n])
    assert {b["name"] for b in found["baselines"]} >= {"efficient-kan", "fastkan", "chebykan", "kat", "mlp"}
    winner = next(e for e in found["best"] if e["candidate"] == found["winner"])
    assert set(winner["test"]) == {"rmse"}

    out = tmp_path / "net.py"
    export = ["export", "kan-0001", "--runs-dir", str(tmp_path), "-o", str(out), "--weights", "--json"]
    assert main([*export[:4], "-o", str(tmp_path / "x.safetensors"), "--weights"]) == 2
    assert "must not end in .safetensors" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
    assert main(export) == 0
    told = json.loads(capsys.readouterr().out)["export"]
    assert told["max_error"] < 1e-9
    assert told["measured"]["rmse"] in _measured(tmp_path / "kan-0001", found["winner"])

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
    assert float(said) == pytest.approx(winner["test"]["rmse"]["mean"], rel=0.5)


def _measured(run_dir: Path, number: int) -> list[float]:
    from layersearch.search.store_reader import StoreReader

    with StoreReader(run_dir) as reader:
        return [r.outcome.fitness["rmse"] for r in reader.results(number) if r.stage == "rerank:0"]


@pytest.mark.slow
def test_tune_and_show_and_the_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("tune", tmp_path, "feynman:I.6.2") == 0
    assert "feynman:I.6.2" in capsys.readouterr().out
    assert tiny("evolve", tmp_path, "feynman:I.6.2", "--driver", "random", "--rerank-top", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["driver"] == "random"
    assert main(["show", "kan-0001", "--runs-dir", str(tmp_path)]) == 0
    assert "KAN …-" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.data
def test_a_table(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("evolve", tmp_path, "uci:yacht", "--data-dir", str(data_dir), "--set", "task.split=3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "fn:f9"], "did you mean 'fn:f"),
        (["--data", "digit"], "did you mean 'digits'"),
        (["--data", "mnist"], "no data folder"),
        (["--data", "digits", "--set", "network.max_chanels=4"], "did you mean 'network.max_channels'"),
        (["--data", "digits", "--set", "network.kinds=[vit]"], "kinds"),
        (["--data", "digits", "--seed-layers", "fastkan"], "did you mean 'fastkan-conv'"),
        (["--data", "uci:yacht", "--set", "task.split=20"], "split of uci:yacht must be in [0, 19]"),
        (["--data", "uci:yacht"], "no data folder"),
        (["--set", "network.bases=[bsplin]"], "did you mean 'bspline'"),
        (["--set", "network.max_width=1000000"], "max_width"),
        (["--series", "b"], "series must be left out"),
        (["--lowering", "c"], "unknown lowering of the space kan 'c'"),
        (["--seed-layers", "bn-relu"], "unknown design 'bn-relu'"),
        (["--preset", "huge"], "unknown preset"),
        (["--objectives", "\udcff"], "arguments must be text in UTF-8"),
    ],
    ids=ascii,
)
def test_bad_input_is_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.delenv("LAYERSEARCH_DATA", raising=False)
    assert main(["evolve", "--space", "kan", "--runs-dir", str(tmp_path), *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--genome", "known:fastkn"], "did you mean 'fastkan'"),
        (["--genome", "known:kat", "--format", "onnx"], "format must be python"),
        (["--genome", "known:kat", "--exact"], "leave it out"),
        (["--genome", "known:kat", "--weights"], "give the name of a run"),
        (["--genome", "genome.json"], "must be an object with format"),
    ],
    ids=str,
)
def test_bad_exports_are_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("genome.json").write_text("[1]")
    assert main(["export", "--space", "kan", "-o", "x.py", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("x.py").exists()


def test_a_known_design_is_exported_and_read_by_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import layersearch
    from layersearch.errors import BadInputError

    out = tmp_path / "kat.py"
    assert main(["export", "--space", "kan", "--genome", "known:kat", "--num-features", "4", "-o", str(out)]) == 0
    assert "rational(degree=5" in capsys.readouterr().out
    design = layersearch.known("kan", "kat")
    assert design.formula in out.read_text()
    assert "class Model" in design.source()
    assert design.latex
    import torch

    assert design.module(5, out_features=2)(torch.zeros(7, 5)).shape == (7, 2)
    refused = ({"lowering": "c"}, "torch"), ({"groups": 2}, "groups"), ({"out_features": 0}, "≥ 1")
    for arguments, sentence in refused:
        with pytest.raises(BadInputError, match=sentence):
            design.module(5, **{"out_features": 1, **arguments})  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="out_features must be given"):
        layersearch.swap(torch.nn.Sequential(torch.nn.BatchNorm2d(4), torch.nn.ReLU()), design.module)
    with pytest.raises(BadInputError, match="out_features"):
        layersearch.known("evonorm", "bn-relu").module(4, out_features=4)


def test_groups_of_data_are_listed_briefly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "--json"]) == 0
    spaces = {row["name"]: row for row in json.loads(capsys.readouterr().out)["spaces"]}
    assert {"fn:f3", "feynman:I.6.2", "uci:concrete"} <= set(spaces["kan"]["data"])
    assert main(["spaces"]) == 0
    shown = capsys.readouterr().out
    assert "fn:f1 … f5" in shown
    assert shown.count("feynman:") == 4, "two for kan, two for skan"

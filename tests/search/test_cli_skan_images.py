"""search on the skan space for images, from the command to a file that runs without layersearch."""

import json
from pathlib import Path

import numpy as np
import pytest
from alone import alone

from layersearch.search.cli import main
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.contracts import JsonObject
from layersearch.spaces.tasks.images import load_images

TINY = [
    "task.quality_steps=5", "task.fitness_steps=10", "task.rerank_steps=15", "task.validation_cap=100",
    "task.shrink=2", "task.image_size=8", "task.crop=8", "task.eval_size=8",
    "network.max_channels=8", "network.max_blocks=2", "network.reference_conv=[4, 4]", "pool.largest=2",
    "pool.bases=[chebyshev, gram, rational]", "funnel.quality_chance=0.1", "funnel.rerank_seeds=1",
]  # fmt: skip


def tiny(command: str, runs: Path, *more: str) -> int:
    sets = [word for pair in TINY for word in ("--set", pair)]
    run = ["--runs-dir", str(runs), "--backend", "inline", "--device", "cpu", "--evaluations", "3"]
    return main([command, "--space", "skan", "--data", "digits", *run, "--population", "8", *sets, *more])


@pytest.mark.slow
def test_from_a_search_to_a_file_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("evolve", tmp_path, "--rerank-top", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert {b["name"] for b in found["baselines"]} == {
        "chebyshev", "gram", "rational", "conv-relu", "conv-relu-most",
    }  # fmt: skip
    assert all(b["selection"] is None for b in found["baselines"])
    winner = next(e for e in found["best"] if e["candidate"] == found["winner"])
    shape = winner["genome"]["shape"]
    widths = [shape["stem"], *shape["channels"]]
    names = winner["selection"]["layers"]
    assert [len(layer) for layer in names] == (widths if winner["genome"]["head"] == "kan" else widths[:-1])
    assert main(["show", "skan-0001", "--runs-dir", str(tmp_path)]) == 0
    assert f"selected: {winner['selected']}" in " ".join(capsys.readouterr().out.split())

    out = tmp_path / "net.py"
    export = ["export", "skan-0001", "--runs-dir", str(tmp_path), "-o", str(out), "--weights", "--json"]
    assert main(export) == 0
    told = json.loads(capsys.readouterr().out)["export"]
    assert told["max_error"] < 1e-9
    with StoreReader(tmp_path / "skan-0001") as reader:
        measured = {r.stage: r.outcome for r in reader.results(found["winner"])}
    assert told["measured"]["accuracy"] == measured["rerank:0"].fitness["accuracy"]
    assert measured["rerank:0"].selection == winner["selection"]

    data = load_images("digits")
    np.savez(tmp_path / "images.npz", x=data.test_x, y=data.test_y)
    code = (
        "import sys, torch, numpy as np\n"
        "from net import Model\n"
        "assert not any(name.startswith('layersearch') for name in sys.modules)\n"
        "d = np.load('images.npz')\n"
        "x = torch.nn.functional.avg_pool2d(torch.tensor(d['x'], dtype=torch.float32), 2)\n"
        "print((Model.load('net.safetensors')(x).argmax(1).numpy() == d['y']).mean())\n"
    )
    said = alone(code, tmp_path)
    assert float(said) == pytest.approx(measured["test:0"].fitness["accuracy"], abs=1.5 / len(data.test_y))


@pytest.mark.slow
def test_tune_goes_on_where_it_was_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("tune", tmp_path / "whole", "--rerank-top", "0", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert tiny("tune", tmp_path / "cut", "--rerank-top", "0", "--evaluations", "1", "--json") == 0
    capsys.readouterr()
    assert main(["resume", "skan-0001", "--runs-dir", str(tmp_path / "cut"), "--evaluations", "3", "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    for key in ("genome", "fitness"):
        assert [e[key] for e in resumed["best"]] == [e[key] for e in whole["best"]]
    # Not as it is shown: the winner of the first part was trained again for its test, and may have selected otherwise.
    assert _selected(tmp_path / "cut" / "skan-0001") == _selected(tmp_path / "whole" / "skan-0001")


def _selected(run_dir: Path) -> list[JsonObject | None]:
    """In the search, by candidate."""
    with StoreReader(run_dir) as reader:
        outcomes = [{r.stage: r.outcome for r in reader.results(c.number)} for c in reader.candidates()]
        return [found["fitness"].selection for found in outcomes if "fitness" in found]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "pool.bases=[bsplin,rbf]"], "did you mean 'bspline'"),
        (["--set", "network.kinds=[kat]"], "unknown setting 'network.kinds'"),
        (["--set", "network.max_depth=2"], "unknown setting 'network.max_depth'"),
        (["--objectives", "rmse"], "unknown objective 'rmse'"),
        (["--seed-layers", "skan"], "unknown design 'skan'; did you mean 'sconvkan"),
        (["--data", "digit"], "unknown data set 'digit'"),
        (["--lowering", "c"], "unknown lowering of the space skan 'c'"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["evolve", "--space", "skan", "--data", "digits", "--runs-dir", str(tmp_path), *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_designs_are_built_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    import layersearch

    design = layersearch.known("skan", "sconvkan")
    assert design.formula.startswith("S-ConvKAN: conv 12-16-24, 3×3, max pooling, linear head, one of bspline(")
    assert "per channel" in design.formula
    assert "in" in design.latex
    module = design.module(3, out_features=4)
    assert module(torch.zeros(2, 3, 28, 28)).shape == (2, 4)
    assert module[2].pruned().selected() == ("bspline",) * 12
    out = tmp_path / "x.py"
    assert main(["export", "--space", "skan", "--genome", "known:sconvkan", "-o", str(out)]) == 2
    assert "name an evaluated candidate of a run" in capsys.readouterr().err
    assert not out.exists()


def test_images_are_listed_with_the_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "--json"]) == 0
    spaces = {row["name"]: row for row in json.loads(capsys.readouterr().out)["spaces"]}
    assert {"fn:r3", "digits", "fashion_mnist", "cifar10"} <= set(spaces["skan"]["data"])

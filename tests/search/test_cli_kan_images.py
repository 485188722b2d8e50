"""search on the kan space for images, from the command to a file that runs without layersearch."""

import json
from pathlib import Path

import numpy as np
import pytest
from alone import alone

from layersearch.search.cli import main
from layersearch.spaces.tasks.images import load_images

TINY = [
    "task.quality_steps=10", "task.fitness_steps=20", "task.rerank_steps=30", "task.validation_cap=200",
    "network.max_channels=8", "network.max_blocks=2", "network.max_width=16", "network.max_depth=1",
    "network.reference_conv=[4, 8]", "network.reference_vit={width: 16, depth: 1, heads: 2, hidden: 16}",
    "network.bases=[gram, rational, rbf, bspline]", "funnel.quality_chance=0.5", "funnel.rerank_seeds=1",
]  # fmt: skip


def tiny(command: str, runs: Path, data: str, *more: str) -> int:
    sets = [word for pair in TINY for word in ("--set", pair)]
    run = ["--runs-dir", str(runs), "--workers", "1", "--device", "cpu", "--evaluations", "5", "--population", "8"]
    return main([command, "--space", "kan", "--data", data, *run, *sets, *more])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv", "kat"])
def test_from_a_search_to_a_file_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert tiny("evolve", tmp_path, "digits", "--set", f"network.kinds=[{kind}]", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert [o["name"] for o in found["objectives"]] == ["accuracy", "parameters"]
    accuracies = {e["candidate"]: e["rerank"]["accuracy"]["mean"] for e in found["best"] if e["rerank"]}
    assert accuracies[found["winner"]] == max(accuracies.values())
    assert {b["name"] for b in found["baselines"]} == {
        "kan-conv", "fastkan-conv", "kacn", "kagn", "kat-vit", "conv-relu", "vit-gelu"
    }  # fmt: skip
    winner = next(e for e in found["best"] if e["candidate"] == found["winner"])
    assert main(["show", "kan-0001", "--runs-dir", str(tmp_path)]) == 0
    assert "patch 4" in capsys.readouterr().out or kind == "conv"

    out = tmp_path / "net.py"
    export = ["export", "kan-0001", "--runs-dir", str(tmp_path), "-o", str(out), "--weights", "--json"]
    assert main(export) == 0
    told = json.loads(capsys.readouterr().out)["export"]
    assert told["max_error"] < 1e-9
    assert told["measured"]["accuracy"] == pytest.approx(accuracies[found["winner"]])

    data = load_images("digits")
    np.savez(tmp_path / "images.npz", x=data.test_x, y=data.test_y)
    code = (
        "import sys, torch, numpy as np\n"
        "from net import Model\n"
        "assert not any(name.startswith('layersearch') for name in sys.modules)\n"
        "d = np.load('images.npz')\n"
        "y = Model.load('net.safetensors')(torch.tensor(d['x'], dtype=torch.float32)).argmax(1).numpy()\n"
        "print((y == d['y']).mean())\n"
    )
    said = alone(code, tmp_path)
    assert float(said) == pytest.approx(winner["test"]["accuracy"]["mean"], abs=1.5 / len(data.test_y))


@pytest.mark.slow
def test_tune_and_the_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("tune", tmp_path, "digits", "--rerank-top", "0") == 0
    assert "digits, 16×16" in capsys.readouterr().out
    assert tiny("evolve", tmp_path, "digits", "--driver", "random", "--rerank-top", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["driver"] == "random"


@pytest.mark.slow
@pytest.mark.data
def test_published_images(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--data-dir", str(data_dir), "--rerank-top", "0", "--json"]
    assert tiny("evolve", tmp_path, "fashion_mnist", *more) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


def test_known_designs_of_images_are_exported_and_read_by_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    import layersearch

    out = tmp_path / "kagn.py"
    assert main(["export", "--space", "kan", "--genome", "known:kagn", "--num-features", "3", "-o", str(out)]) == 0
    assert "gram(degree=3" in capsys.readouterr().out
    namespace: dict[str, object] = {}
    exec(compile(out.read_text(), "kagn.py", "exec"), namespace)
    assert namespace["Model"]()(torch.zeros(2, 3, 28, 28)).shape == (2, 10)  # type: ignore[operator]
    design = layersearch.known("kan", "kat-vit")
    assert design.formula == (
        "ViT 3×(32, 64), 4 heads, patch 4, linear head, rational(degree=5, groups=8, learn=True, start=silu), "
        "no base, no domain map, init variance"
    )
    assert design.latex
    assert design.module(1, out_features=4)(torch.zeros(2, 1, 28, 28)).shape == (2, 4)


def test_images_are_listed_with_the_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "--json"]) == 0
    spaces = {row["name"]: row for row in json.loads(capsys.readouterr().out)["spaces"]}
    assert {"fn:f3", "digits", "fashion_mnist", "cifar10"} <= set(spaces["kan"]["data"])

"""Runs with rungs in the spaces of networks: they are resumed as if nothing had happened, and say what was spared."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_runs import content_of, interruption

from layersearch.search.executors.base import SpaceSpec
from layersearch.search.run_settings import RunSettings
from layersearch.search.runner import RunEvent, Runner
from layersearch.search.show import print_show, show_object
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.catalog import SPACES

pytestmark = pytest.mark.slow

RACING = {"scheduler": "racing", "scheduler_settings": {"margin": 0.0, "best": 1}, "evaluations": 7}
REGRESSION = {
    "task.points": 60, "task.test_points": 40, "task.quality_steps": 2, "task.fitness_steps": 9, "task.rerank_steps": 2,
    "network.max_depth": 1,  "network.max_width": 4, "network.reference": [3], "network.most_parameters": 400,
    "funnel.quality_rmse": 50.0, "funnel.rerank_seeds": 1, "fidelity.rungs": [1, 4],
}  # fmt: skip
CLICKS = {
    "search.models": ["lr"], "search.reference": "lr", "search.search_epochs": [3, 4], "search.rewind_epochs": [0, 1],
    "search.lr": [0.02, 0.05], "task.reviews": 0, "task.warm_epochs": 1, "task.batch": 50, "task.epochs": 2,
    "task.decay": 0.0, "task.std": 0.1, "funnel.quality_auc": 0.0, "funnel.rerank_seeds": 1, "fidelity.ratio": 3,
}  # fmt: skip


POOL = {"pool.bases": ["chebyshev", "sine"], "pool.largest": 2}
"""Few baselines."""


def regression(_: Path) -> tuple[str, dict[str, Any]]:
    return "fn:r1", REGRESSION


def selective(_: Path) -> tuple[str, dict[str, Any]]:
    return "fn:r1", REGRESSION | POOL


def clicks(folder: Path) -> tuple[str, dict[str, Any]]:
    """A table in which three of twenty items are clicked."""
    rng = random.Random(0)
    items = [rng.randrange(20) for _ in range(500)]
    rows = [f"i{item},n{rng.randrange(9)},{int(rng.random() < (0.9 if item < 3 else 0.2))}" for item in items]
    (folder / "clicks.csv").write_text("\n".join(["item,noise,click", *rows]) + "\n")
    (folder / "schema.yaml").write_text("label: click\ncolumns: [item, noise]\n")
    return str(folder / "clicks.csv"), CLICKS | {"task.schema": str(folder / "schema.yaml")}


@pytest.mark.parametrize(
    ("space", "task", "settings"),
    [
        ("kan", regression, {"scheduler": "asha", "driver": "optuna"}),
        ("skan", selective, RACING),
        ("skan", selective, {"scheduler": "asha"}),
        ("optfs", clicks, {"scheduler": "asha"}),
    ],
)
def test_interrupted_anywhere_and_resumed_equals_undisturbed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    space: str,
    task: Callable[[Path], tuple[str, dict[str, Any]]],
    settings: dict[str, Any],
) -> None:
    entry = SPACES[space]
    data, overrides = task(tmp_path)
    spec = SpaceSpec(entry.entry, entry.settings_of(None, data, None, "smoke", overrides, None, "torch"), ())
    common = {"evaluations": 4, "population": 3, "seed": 1, "deterministic": True, "rerank_top": 1}
    given = RunSettings(**(common | settings))

    def run(name: str, on_event: Callable[[RunEvent], None] | None = None) -> str:
        (tmp_path / name).mkdir(exist_ok=True)
        return Runner(tmp_path / name, spec, given, on_event).run()

    assert run("whole") == "finished"
    rng, n_resumes = random.Random(0), 0
    while run("parts", interruption(rng, 10, 30)) != "finished":
        n_resumes += 1
    assert n_resumes > 2
    assert content_of(tmp_path / "parts") == content_of(tmp_path / "whole")

    found = show_object(tmp_path / "parts", 3)
    assert found["counts"]["evaluated"] == given.evaluations
    assert found["saved"]["candidates"] > 0, "or nothing was spared"
    assert (found["saved"]["steps"] is None) == (space == "optfs")
    with StoreReader(tmp_path / "parts") as reader:
        assert bool(reader.promotions()) == (settings["scheduler"] == "asha")
    print_show(tmp_path / "parts", 3, as_json=False)
    what = "what was left" if space == "optfs" else "training steps"
    assert what in capsys.readouterr().out.partition("saved against straight: ")[2].partition("core-minutes")[0]

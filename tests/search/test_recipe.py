"""Recipes: flags over file over defaults, every bad value one sentence, and the written file makes the same run."""

from pathlib import Path
from typing import Any

import pytest

from layersearch.errors import LayerSearchError
from layersearch.search.executors.base import AS_MANY_AS_FIT, EXECUTORS
from layersearch.search.recipe import Recipe, parse_set
from layersearch.search.recipe_yaml import load_text
from layersearch.search.run_settings import BACKENDS, RunSettings
from layersearch.search.session import _moved, recipe_of


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAYERSEARCH_DATA", raising=False)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "a space must be given"),
        ({"evaluatons": 5}, "unknown option 'evaluatons'; did you mean 'evaluations'?"),
        ({"recipe": "x"}, "unknown option 'recipe'"),
        ({"evaluations": 0}, "'evaluations' must be greater than or equal to 1, got 0"),
        ({"evaluations": -3}, "got -3"),
        ({"evaluations": 2.5}, "'evaluations' must be a valid integer"),
        ({"evaluations": True}, "must be a valid integer, got True"),
        ({"evaluations": "12"}, "must be a valid integer, got '12'"),
        ({"evaluations": 10**12}, "less than or equal"),
        ({"minutes": float("nan")}, "'minutes' must be a finite number, got nan"),
        ({"minutes": float("inf")}, "must be a finite number"),
        ({"minutes": 0}, "'minutes' must be greater than 0"),
        ({"minutes": True}, "'minutes' must be a valid number"),
        ({"minutes": 2, "evaluations": 2}, "a run must have one end, got both evaluations 2 and minutes 2"),
        ({"population": [8]}, "'population' must be a valid integer"),
        ({"workers": 0}, "'workers' must be"),
        ({"workers": 2, "backend": "inline"}, "the inline backend must have one worker, got 2"),
        ({"backend": "rya"}, "unknown backend 'rya'"),
        ({"seed": -1}, "'seed' must be greater than or equal to 0"),
        ({"seed": 2**63}, "'seed' must be less"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"deterministic": "yes"}, "'deterministic' must be a valid boolean"),
        ({"seed_layers": "bn-relu"}, "'seed_layers' must be a valid list"),
        ({"baselines": "none"}, "'baselines' must be a valid list, got 'none'"),
        ({"set": [1]}, "'set' must be a valid dictionary"),
        ({"set": {"task.batch": float("nan")}}, "task.batch must be a finite number, got nan"),
        ({"set": {"task.x": [1.0, float("inf")]}}, "task.x must be a finite number"),
        ({"set": {"driver.p_random": "x"}}, "driver.p_random must be a number, got 'x'"),
        ({"space": "evonrom"}, "unknown space 'evonrom'; did you mean 'evonorm'?"),
        ({"space": ["evonorm"]}, "'space' must be a valid string"),
        ({"preset": "smol"}, "unknown preset 'smol'"),
        ({"series": "x"}, "unknown series 'x'"),
    ],
)
def test_bad_values_are_one_sentence(values: dict[str, Any], says: str) -> None:
    with pytest.raises(LayerSearchError) as caught:
        Recipe.parse(({"space": "evonorm"} if values else {}) | values).completed(2)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert "http" not in str(caught.value), "pydantic's links are no help"


def test_defaults_depend_on_preset_and_cores() -> None:
    two = Recipe.parse({"space": "evonorm"}).completed(2)
    assert (two.data, two.preset, two.series, two.backend, two.workers) == ("digits", "smoke", "b", "pool", 2)
    assert two.deterministic is False
    one = Recipe.parse({"space": "evonorm"}).completed(1)
    assert (one.backend, one.workers, one.deterministic) == ("inline", 1, True)
    assert Recipe.parse({"space": "evonorm"}).completed(64).workers == 8
    assert Recipe.parse({"space": "evonorm", "backend": "inline"}).completed(64).workers == 1
    gpu = {"space": "evonorm", "device": "cuda:1"}
    assert [Recipe.parse(gpu).completed(n).backend for n in (1, 2)] == ["inline", "streams"]
    assert Recipe.parse(gpu | {"backend": "pool"}).completed(2).backend == "pool"
    assert set(BACKENDS) == set(EXECUTORS)
    paper = Recipe.parse({"space": "evonorm", "preset": "paper"}).completed(2)
    assert (paper.evaluations, paper.population) == (2500, 256)
    assert Recipe.parse({"space": "evonorm", "minutes": 3}).completed(2).evaluations is None


def test_flags_override_the_file_and_one_end_the_other(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("space: evonorm\nevaluations: 5\nworkers: 2\nseed: 7\nset: {task.batch: 16, graph.nodes: 8}\n")
    recipe = recipe_of({"minutes": "1.5", "backend": "inline", "seed": "8"}, path, ["task.batch=64"], [])
    assert (recipe.minutes, recipe.evaluations, recipe.workers, recipe.seed) == (1.5, None, 1, 8)
    assert recipe.set == {"task.batch": 64, "graph.nodes": 8}


def test_seed_layers_by_comma_or_none() -> None:
    given = {"space": "evonorm"}
    assert recipe_of(given, None, [], ["bn-relu,evonorm-s0", "frn-tlu"]).seed_layers == [
        "bn-relu",
        "evonorm-s0",
        "frn-tlu",
    ]
    assert recipe_of(given, None, [], ["none"]).seed_layers == []


def test_baselines_by_comma_all_or_none(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("space: evonorm\nbaselines: [bn-relu]\n")
    for flag, baselines in (("gn-relu, bn-silu", ["gn-relu", "bn-silu"]), ("none", []), ("all", None)):
        recipe = recipe_of({"baselines": flag}, path, [], [])
        assert recipe.baselines == recipe.run_settings().baselines == baselines
    assert recipe_of({}, path, [], []).run_settings().baselines == ["bn-relu"]
    assert recipe_of({"space": "evonorm"}, None, [], []).baselines is None


def test_data_dir_by_flag_file_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_of({"space": "evonorm"}, None, [], []).data_dir is None
    monkeypatch.setenv("LAYERSEARCH_DATA", "from-env")
    assert recipe_of({"space": "evonorm"}, None, [], []).data_dir == str(tmp_path / "from-env")
    path = tmp_path / "recipe.yaml"
    path.write_text("space: evonorm\ndata_dir: from-file\n")
    assert recipe_of({}, path, [], []).data_dir == str(tmp_path / "from-file")
    assert recipe_of({"data_dir": "from-flag"}, path, [], []).data_dir == str(tmp_path / "from-flag")


def test_a_gpu_is_taken_where_the_space_says_so_or_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert recipe_of({"space": "kan"}, None, [], []).device == "cuda"
    assert recipe_of({"space": "optfs"}, None, [], []).device == "cpu"
    assert recipe_of({"space": "optfs", "device": "cuda"}, None, [], []).device == "cuda"
    assert recipe_of({"space": "optfs", "backend": "ray", "gpus_per_worker": "0.5"}, None, [], []).device == "auto"


def test_the_written_recipe_makes_the_same_run() -> None:
    values = {
        "space": "evonorm", "minutes": 2.5, "workers": 2, "deterministic": True, "seed_layers": [], "run": "x",
        "baselines": [],
        "set": {"driver.p_random": 0.2, "task.learning_rate": 1e-05, "funnel.stability_networks": ["resnet"]},
    }  # fmt: skip
    recipe = Recipe.parse(values).completed(4)
    again = Recipe.parse(load_text(recipe.to_yaml(), "it")).completed(1)
    assert again == recipe.model_copy(update={"run": None})
    assert again.run_settings() == recipe.run_settings()
    assert again.run_settings().driver_settings == {"p_random": 0.2}


def test_set_takes_key_and_value() -> None:
    assert parse_set(["a.b=1e-3", "c=x=y", "d="]) == {"a.b": 1e-3, "c": "x=y", "d": None}
    for bad in ("a", "=3", "a=[1"):
        with pytest.raises(LayerSearchError, match="--set"):
            parse_set([bad])


@pytest.mark.parametrize(
    ("values", "backend", "workers"),
    [
        ({"backend": "ray"}, "ray", 2),
        ({"backend": "ray", "workers": 5}, "ray", 5),
        ({"address": "h:6379"}, "ray", AS_MANY_AS_FIT),
        ({"gpus_per_worker": 0.25}, "ray", AS_MANY_AS_FIT),
        ({"cpus_per_worker": 2.0}, "ray", 2),
        ({"address": "h:6379", "workers": 3}, "ray", 3),
        ({"workers": 3}, "pool", 3),
    ],
)
def test_options_of_a_cluster_mean_the_backend_ray(
    values: dict[str, Any], backend: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe = Recipe.parse({"space": "evonorm", **values}).completed(2)
    assert (recipe.backend, recipe.workers) == (backend, workers)
    settings = recipe.run_settings()
    assert settings.address == values.get("address")
    assert settings.gpus_per_worker == values.get("gpus_per_worker")


def test_within_a_job_of_a_cluster_it_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "h:6379")
    assert Recipe.parse({"space": "evonorm", "backend": "ray"}).completed(2).workers == AS_MANY_AS_FIT


@pytest.mark.parametrize(
    ("recorded", "given", "moved"),
    [
        (("pool", 2, None), {}, ()),
        (("pool", 2, None), {"workers": 4}, ("pool", 4, None)),
        (("pool", 2, None), {"address": "h:1"}, ("ray", AS_MANY_AS_FIT, "h:1")),
        (("pool", 2, None), {"backend": "ray"}, ("ray", 2, None)),
        (("ray", 8, "h:1"), {"address": "h:2"}, ("ray", 8, "h:2")),
        (("ray", 8, "h:1"), {"workers": 3}, ("ray", 3, "h:1")),
        (("ray", AS_MANY_AS_FIT, "h:1"), {"backend": "inline"}, ("inline", 1, None)),
        (("ray", 3, "h:1"), {"backend": "pool", "workers": 6}, ("pool", 6, None)),
    ],
)
def test_a_run_may_go_on_elsewhere(
    recorded: tuple[str, int, str | None], given: dict[str, Any], moved: tuple[str, int, str | None]
) -> None:
    settings = RunSettings(evaluations=1, backend=recorded[0], workers=recorded[1], address=recorded[2])
    changes = _moved(settings, Recipe.parse({"space": "", **given}), "cpu")
    assert tuple(changes.get(name) for name in ("backend", "workers", "address") if changes) == moved


def test_a_cluster_never_leaves_its_workers_to_a_pool() -> None:
    settings = RunSettings(evaluations=1, backend="ray", workers=AS_MANY_AS_FIT)
    assert _moved(settings, Recipe.parse({"space": "", "backend": "pool"}), "cpu")["workers"] <= 8

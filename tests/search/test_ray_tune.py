"""Spaces in the hands of Ray Tune: its searchers and schedulers, its checkpoints, and what it found as layers."""

import functools
import json
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy_catalog  # puts the toy space on the list
import toy_space

import layersearch
from layersearch.errors import BadInputError, RecipeError, RunError, UnknownNameError
from layersearch.search.ray_tune import RayTune, levels_of, ray_tune
from layersearch.search.trials import AnswerError

assert toy_catalog.DATA
TINY = {
    "task.batch": 8, "task.quality_steps": 2, "task.fitness_steps": 18, "task.rerank_width": 1,
    "task.validation_cap": 20, "funnel.quality_chance": 0, "funnel.early_step": 0, "funnel.stability_steps": 2,
}  # fmt: skip
TINY_KAN = {
    "task.points": 200, "task.test_points": 300, "task.quality_steps": 5, "task.fitness_steps": 20,
    "network.max_depth": 1, "network.max_width": 6, "network.reference": [6],
}  # fmt: skip
README = Path(__file__).parents[2] / "README.md"


def toy(**settings: Any) -> RayTune:
    return ray_tune("toy", set=settings)


# --- without a cluster ------------------------------------------------------------------------------------------------


def test_settings_are_those_of_a_search(tmp_path: Path) -> None:
    task = ray_tune("evonorm", series="s", seed=7, set=TINY)
    assert (task.name, task.seed, task.max_budget) == ("evonorm", 7, 9)
    assert task.space.describe()[0] == ("series", "S (10 nodes)")
    (tmp_path / "r.yaml").write_text("space: kan\ndata: fn:r1\nworkers: 3\nevaluations: 12\nseed: 5\ndriver: random\n")
    task = ray_tune(recipe=tmp_path / "r.yaml", set=TINY_KAN)
    assert (task.name, task.seed, task.max_budget) == ("kan", 5, 3)
    assert task.metrics == {"rmse": "min", "parameters": "min"}
    for names in ("memory, rmse", ["memory", "rmse"]):
        assert list(ray_tune("kan", objectives=names, set=TINY_KAN).metrics) == ["rmse", "memory"]
    assert ray_tune("evonorm", eta=2, seed_layers=["bn-relu"], set=TINY).known() == task_of_bn_relu()


def task_of_bn_relu() -> list[dict[str, Any]]:
    space = ray_tune("evonorm", set=TINY).space
    return [space.parameters(space.seeds()["bn-relu"])]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: ray_tune("evonrom"), UnknownNameError, "did you mean 'evonorm'"),
        (lambda: ray_tune(), RecipeError, "a space must be given"),
        (lambda: ray_tune("evonorm", evaluations=3), UnknownNameError, "unknown option 'evaluations'"),
        (lambda: ray_tune("evonorm", set={"task.bach": 3}), BadInputError, "task.bach"),
        (lambda: ray_tune("evonorm", eta=1), RecipeError, "scheduler.eta must be a whole number ≥ 2"),
        (
            lambda: ray_tune("kan", set=TINY_KAN | {"task.quality_steps": 20}).asha(),
            RecipeError,
            "early stopping must have rungs, but kan",
        ),
        (lambda: toy().genome({"ten": 3}), AnswerError, "the answer to odd"),
        (lambda: toy().genome({"known": "none"}), UnknownNameError, "unknown layer 'none'"),
        (lambda: toy().best([]), RunError, "a trial must be evaluated to its end, but none of 0 was"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_one_sentence(call: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_configs_are_genomes() -> None:
    from optuna import create_study

    task, study = toy(), create_study()
    for _ in range(20):
        trial = study.ask()
        task.define(trial)
        assert task.genome(trial.params) == task.space.suggest(trial)  # type: ignore[attr-defined]
    drawn = [task.genome({"genome_seed": n}) for n in range(200)]
    assert drawn == [toy().genome({"genome_seed": n}) for n in range(200)]
    assert len(set(drawn)) > 150
    assert not any(n % 7 == 0 or n % 11 == 5 for n in drawn), "what is screened out is never drawn"
    assert task.genome({"known": "eleven"}) == 11
    assert pickle.loads(pickle.dumps(task)).genome({"known": "ten"}) == 10, "OptunaSearch pickles it"


def test_a_space_that_is_exhausted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_space.ToySpace, "sample", lambda *_: 7)
    with pytest.raises(RunError, match="10000 in a row drawn by genome_seed=3 were not"):
        toy().genome({"genome_seed": 3})


# --- the trainable ----------------------------------------------------------------------------------------------------


def at_a_place(trainable: Any, folder: Path) -> Any:
    """A trainable that Tune does not make, and which would else write below the home folder."""

    class Placed(trainable):  # type: ignore[misc]
        def _setup_logdir(self) -> None:
            self._logdir = str(folder)

    return Placed


class Local:
    """The trainable as Tune would use it, in this process."""

    def __init__(self, task: RayTune, monkeypatch: pytest.MonkeyPatch) -> None:
        import ray

        from layersearch.search._ray_trainable import StagesTrainable

        class Context:
            def get_assigned_resources(self) -> dict[str, float]:
                return {"CPU": 1.0}

        monkeypatch.setattr(ray, "get_runtime_context", Context)
        data = task.space.load_data()

        class Given(StagesTrainable):
            def setup(self, config: dict[str, Any], *_: Any) -> None:  # type: ignore[override]
                super().setup(config, task, data)

        self.make = at_a_place(Given, Path.cwd())

    def all_of(self, config: dict[str, Any]) -> list[dict[str, Any]]:
        """Reports of one trial."""
        made, reports = self.make(config), []
        while not reports or not reports[-1]["done"]:
            reports.append(made.step())
        return reports


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key != "metrics"}


def test_a_report_at_each_rung_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Local(toy(), monkeypatch)
    reports = local.all_of({"known": "ten"})
    assert levels_of(toy().space.stages) == ("fitness:o1@0", "fitness:o1@1", "fitness:o1")
    assert [r["state"] for r in reports] == ["passed", "passed", "evaluated"]
    assert [r["budget"] for r in reports] == [1, 3, 9]
    assert [r["training_steps"] for r in reports] == [30, 90, 270]
    assert [r["done"] for r in reports] == [False, False, True]
    last = reports[-1]
    assert last["fitness"] == pytest.approx((last["o0"] - last["o1"]) / 2), "o1 is to be small"
    assert last["metrics"]["loss.o1"] == pytest.approx(1 - 10 / 13)
    assert [numbers(r) for r in local.all_of({"known": "ten"})] == [numbers(r) for r in reports]


def test_what_is_not_measured_is_nan_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy(tricks={"10": "fail", "12": "nan", "13": "raise", "15": "raise-once"}, reject_every=0)
    local = Local(task, monkeypatch)
    found = {n: local.all_of(_config(n))[-1] for n in (10, 12, 13, 14, 15, 16)}
    assert {n: (r["state"], r["stage"]) for n, r in found.items()} == {
        10: ("failed", "quality"),
        12: ("failed", "quality"),
        13: ("failed", "quality"),
        14: ("rejected", "screen"),
        15: ("evaluated", "fitness:o1"),
        16: ("rejected", "screen"),
    }
    assert (found[14]["reason"], found[16]["reason"]) == ("a multiple of seven", "a multiple of eleven")
    assert found[12]["reason"] == "fitness 'o0' is nan"
    assert found[13]["reason"] == "ValueError: cannot do 13"
    for n in (10, 12, 13, 14, 16):
        assert all(math.isnan(found[n][name]) for name in ("fitness", "o0", "o1"))
        assert found[n]["done"] is True
    assert Local(toy(), monkeypatch).all_of(_config(11))[0]["reason"] == "too small"


def _config(n: int) -> dict[str, Any]:
    parameters = toy().space.parameters(n)  # type: ignore[attr-defined]
    assert isinstance(parameters, dict)
    return parameters


@pytest.mark.slow
def test_what_a_trial_selected_is_reported_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ray_tune("skan", data="fn:r1", set=TINY_KAN)
    report = Local(task, monkeypatch).all_of({"genome_seed": 1})[-1]
    assert report["state"] == "evaluated"
    assert len(report["selection"]["layers"][0]) == 2, "a basis for each input of fn:r1"
    layer = task.layer(SimpleNamespace(metrics=report, config={"genome_seed": 1}))
    assert layer.export(tmp_path / "net.py")["max_error"] < 1e-9


@pytest.mark.slow
def test_it_goes_on_from_a_checkpoint_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ray_tune("evonorm", lowering="torch", set=TINY)
    assert len(levels_of(task.space.stages)) == 3
    local = Local(task, monkeypatch)
    whole = local.all_of({"known": "bn-relu"})
    assert [r["budget"] for r in whole] == [1, 3, 9]
    first = local.make({"known": "bn-relu"})
    assert numbers(first.step()) == numbers(whole[0])
    first.save_checkpoint(str(tmp_path))
    second = local.make({"known": "gn-relu"})
    second.step()
    with pytest.raises(ValueError, match="is of another"):
        second.load_checkpoint(str(tmp_path))
    assert second.reset_config({"known": "bn-relu"}), "the actor of another trial"
    second.load_checkpoint(str(tmp_path))
    assert [numbers(second.step()), numbers(second.step())] == [numbers(r) for r in whole[1:]]
    second.save_checkpoint(str(tmp_path))
    assert json.loads((tmp_path / "progress.json").read_text())["done"][-1]["kept"] is False


# --- real Tune --------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: Any) -> Path:
    """There is a cluster, and Tune writes here, and not below the home folder."""
    from ray.train import constants
    from ray.tune.experiment import experiment

    for module in (constants, experiment):
        monkeypatch.setattr(module, "DEFAULT_STORAGE_PATH", str(tmp_path / "ray_results"))
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(task: RayTune, n: int, checkpoints: int = 0, **parts: Any) -> Any:
    from ray import tune

    param_space = parts.pop("param_space", None)
    run = tune.RunConfig(verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=checkpoints))
    config = tune.TuneConfig(num_samples=n, reuse_actors=True, max_concurrent_trials=2, **parts)
    return tune.Tuner(task.trainable(), param_space=param_space, tune_config=config, run_config=run).fit()


def reported(results: Any) -> list[dict[str, Any]]:
    assert not results.errors
    return [results[i].metrics for i in range(len(results))]


@pytest.mark.ray
@pytest.mark.slow
def test_optuna_search_and_asha(at_home: Path) -> None:
    task = toy(reject_every=0)
    results = fit(task, 40, search_alg=task.optuna(seed=1), scheduler=task.asha())
    found = reported(results)
    states = {r["state"] for r in found}
    assert {"passed", "evaluated", "rejected"} <= states
    stopped = [r for r in found if r["state"] == "passed"]
    assert len(stopped) > 5, "ASHA stopped them at a rung"
    assert {r["budget"] for r in stopped} <= {1, 3}
    layers = task.layers(results)
    assert len(layers) == sum(r["state"] == "evaluated" for r in found)
    best = task.best(results)
    assert task.genome(results[[r["trial_id"] for r in found].index(best.name)].config) == best.genome["n"]
    assert best.fitness == {o: next(r[o] for r in found if r["trial_id"] == best.name) for o in ("o0", "o1")}
    assert {"ten": 1, "odd": "0"} in [results[i].config for i in range(len(results))], "it starts from known layers"


@pytest.mark.ray
@pytest.mark.slow
def test_the_study_knows_what_was_pruned_and_what_failed(at_home: Path) -> None:
    from optuna.trial import TrialState

    task = toy(tricks={"10": "fail"})
    search = task.optuna(seed=1, metric=list(task.metrics), mode=list(task.metrics.values()))
    found = reported(fit(task, 12, search_alg=search))
    by_state = {s: sum(t.state == s for t in search._ot_study.trials) for s in TrialState}
    assert by_state[TrialState.COMPLETE] == sum(r["state"] == "evaluated" for r in found) > 0
    assert by_state[TrialState.PRUNED] == sum(r["state"] == "rejected" for r in found) > 0
    assert by_state[TrialState.FAIL] == sum(r["state"] == "failed" for r in found) > 0
    assert by_state[TrialState.RUNNING] == 0


@pytest.mark.ray
@pytest.mark.slow
def test_tunes_own_sampler_and_its_own_optuna_search(at_home: Path) -> None:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    task = toy()
    results = fit(task, 6, param_space=task.param_space(), metric="fitness", mode="max")
    found = reported(results)
    assert len({r["config"]["genome_seed"] for r in found}) == 6
    assert not any(r["stage"] == "screen" for r in found)
    best = results.get_best_result()
    assert best.metrics["fitness"] == max(r["fitness"] for r in found if r["state"] == "evaluated")
    assert task.layer(best).genome["n"] == task.genome(best.config)
    names = {"known": tune.grid_search(["ten", "eleven", "twelve"])}
    assert {r["config"]["known"] for r in reported(fit(task, 1, param_space=names))} == {"ten", "eleven", "twelve"}
    plain = OptunaSearch(task.define, metric="fitness", mode="max", seed=1)
    assert len(reported(fit(task, 6, search_alg=plain))) == 6


@pytest.mark.ray
@pytest.mark.slow
def test_trials_of_a_stopped_tuner_go_on(at_home: Path) -> None:
    """From the checkpoints that Tune kept, in other actors; what was done is not done again."""
    from ray import tune

    log = at_home / "log"
    task = toy(reject_every=0, log=str(log), sleep_s=0.01)
    names = {"known": tune.grid_search(["ten", "eleven", "twelve"])}
    stop = tune.RunConfig(name="a", verbose=0, stop={"budget": 3}, checkpoint_config=_often())
    results = tune.Tuner(task.trainable(), param_space=names, run_config=stop).fit()
    assert [r["state"] for r in reported(results)] == 3 * ["passed"]
    lines = log.read_text().splitlines()
    restored = task.trainable()
    for i in range(len(results)):
        made = _restored(at_a_place(restored, at_home), results[i])
        assert made["state"] == "evaluated"
    assert log.read_text().splitlines()[len(lines) :] == 3 * ["0 fitness:o0", "0 fitness:o1"]


def _often() -> Any:
    from ray import tune

    return tune.CheckpointConfig(checkpoint_frequency=1)


def _restored(trainable: Any, result: Any) -> dict[str, Any]:
    """The next report of a trial that goes on from its last checkpoint, in an actor."""
    import ray

    actor: Any = ray.remote(num_cpus=1)(trainable)
    made = actor.remote(config=result.config)
    ray.get(made.restore.remote(result.checkpoint.path))
    report: dict[str, Any] = ray.get(made.train.remote())
    ray.kill(made)
    return report


@pytest.mark.ray
@pytest.mark.slow
def test_a_network_of_kan_as_a_file(at_home: Path) -> None:
    task = ray_tune("kan", data="fn:r1", set=TINY_KAN)
    best = task.best(fit(task, 3, search_alg=task.optuna(seed=0)))
    assert set(best.fitness) == {"rmse", "parameters"}
    told = best.export("net.py")
    assert told["max_error"] < 1e-9
    text = Path("net.py").read_text()
    assert "trial" in text
    assert "of Ray Tune on the space kan, seed 0" in text


@pytest.mark.ray
@pytest.mark.slow
def test_what_the_readme_says(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word by word, on a task that is smaller."""
    section = README.read_text().partition("## From Ray Tune")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.setattr(layersearch, "ray_tune", functools.partial(ray_tune, set=TINY), raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    namespace: dict[str, Any] = {}
    exec((at_home / "my_norm.py").read_text(), namespace)
    layer = namespace["Layer"](8)
    assert layer(torch.randn(2, 8, 4, 4)).shape == (2, 8, 4, 4)
    assert "of Ray Tune on the space evonorm" in (at_home / "my_norm.py").read_text()

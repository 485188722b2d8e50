"""Costs as objectives of a run: chosen by name, counted where one candidate dominates another, with every driver,
scheduler and backend; and what cannot be repeated to the bit is not called deterministic."""

from pathlib import Path

import pytest
import yaml
from toy_catalog import toy_cli
from toy_command import refused, shown
from toy_runs import content_of, run_toy

from layersearch.errors import RecipeError
from layersearch.search.recipe import Recipe
from layersearch.search.rerank import mean_value, pareto_front
from layersearch.search.schedulers.asha import Asha
from layersearch.search.schedulers.base import SCHEDULERS, Promotion, Standing
from layersearch.search.store_reader import StoreReader
from layersearch.spaces.catalog import SPACES
from layersearch.spaces.contracts import Objective, Stage
from layersearch.spaces.objectives import cost_objectives

TOY = ("--space", "toy", "--backend", "inline", "--evaluations", "10")
VALUE, MEMORY = Objective("o0"), cost_objectives("nothing")["memory"]
COSTLY = {"costs": ["value", "memory"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAYERSEARCH_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize("command", ["evolve", "tune --sampler tpe", "tune --sampler nsga2"])
def test_costs_by_name_in_recipe_store_and_tables(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    found = shown(capsys, *command.split(), *TOY, "--objectives", "value, memory")
    assert [(o["name"], o["weight"], o["unit"]) for o in found["objectives"]] == [
        ("o0", 1, ""), ("o1", 1, ""), ("memory", 0, "× nothing"),
    ]  # fmt: skip
    assert all(set(entry["fitness"]) == {"o0", "o1", "memory"} for entry in found["best"])
    assert all(set(entry["fitness"]) == {"o0", "o1", "memory"} for entry in found["baselines"])
    assert yaml.safe_load((folder / "runs/toy-0001/recipe.yaml").read_text())["objectives"] == ["value", "memory"]
    with StoreReader(folder / "runs/toy-0001") as reader:
        assert reader.meta("run")["deterministic"] is True
        assert reader.front() == pareto_front(reader.evaluated(), reader.objectives())
        plain = pareto_front(reader.evaluated(), reader.objectives()[:2])
        assert set(plain) <= set(reader.front())
    assert toy_cli("show", "toy-0001") == 0
    out = capsys.readouterr().out
    assert "memory ↓ (× nothing)" in out
    assert "o1 ↓ " in out
    again = shown(capsys, "evolve", "--recipe", "runs/toy-0001/recipe.yaml")
    assert [e["fitness"] for e in again["best"]] == [e["fitness"] for e in found["best"]]


@pytest.mark.parametrize(
    ("driver", "scheduler"), [("evolution", "asha"), ("evolution", "racing"), ("optuna", "straight")]
)
def test_the_number_of_workers_changes_nothing(tmp_path: Path, driver: str, scheduler: str) -> None:
    space = COSTLY | {"ratio": 3 if scheduler != "straight" else 0}
    given = {"driver": driver, "scheduler": scheduler, "evaluations": 12, "lookahead": 6}
    run_toy(tmp_path / "pool", space, backend="pool", workers=2, **given)
    run_toy(tmp_path / "inline", space, **given)
    assert content_of(tmp_path / "pool") == content_of(tmp_path / "inline")


def test_a_time_makes_a_run_that_cannot_be_repeated_and_it_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(capsys, "evolve", *TOY, "--objectives", "value,latency")
    with StoreReader(folder / "runs/toy-0001") as reader:
        assert reader.meta("run")["deterministic"] is False
        assert reader.meta("objectives")[-1]["noisy"] is True
    assert shown(capsys, "resume", "toy-0001", "--evaluations", "14")["counts"]["evaluated"] == 14
    said = refused(capsys, "evolve", *TOY, "--objectives", "value,latency", "--deterministic")
    assert "deterministic must be left out with the objective latency" in said
    with pytest.raises(RecipeError, match="comes out different each time"):
        run_toy(folder / "own", {"costs": ["latency"]}, deterministic=True)
    assert run_toy(folder / "other", {"costs": ["latency"]}, deterministic=None) == "finished"


def test_bad_objectives_are_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for space, arguments, says in [
        (
            "evonorm",
            ["--objectives", "accuracy,speed"],
            "unknown objective 'speed' (known: accuracy, latency, memory, ",
        ),
        ("evonorm", ["--objectives", "memory"], "objectives must have accuracy, each name once, got memory"),
        ("kan", ["--objectives", "rmse,rmse"], "objectives must have rmse, each name once, got rmse, rmse"),
        ("kan", ["--objectives", ""], "got none"),
        ("kan", ["--data", "digits", "--objectives", "rmse"], "unknown objective 'rmse' (known: accuracy, latency, "),
        ("skan", ["--objectives", "latency"], "objectives must have rmse, each name once, got latency"),
        ("optfs", ["--objectives", "ratio"], "objectives must have auc, each name once, got ratio"),
        ("kan", ["--set", "funnel.objectives=[rmse]"], "must be given by --objectives, got --set funnel.objectives"),
    ]:
        assert says in refused(capsys, "evolve", "--space", space, "--device", "cpu", *arguments)
    assert list(folder.iterdir()) == []
    entry = SPACES["kan"]
    without = type(entry)(**{**vars(entry), "objectives": None})
    recipe = Recipe.parse({"space": "kan", "objectives": ["rmse"]})
    assert recipe._chosen_objectives(entry) == {"funnel.objectives": ["rmse"]}
    with pytest.raises(RecipeError, match="the space kan has its own, got rmse"):
        recipe._chosen_objectives(without)


def test_what_has_no_weight_is_not_in_the_mean() -> None:
    assert mean_value({"o0": 0.5}, [VALUE, MEMORY]) == 0.5
    assert pareto_front({0: {"o0": 0.5, "memory": 2.0}, 1: {"o0": 0.4, "memory": 1.0}}, [VALUE, MEMORY]) == [0, 1]
    assert pareto_front({0: {"o0": 0.5, "memory": 1.0}, 1: {"o0": 0.4, "memory": 1.0}}, [VALUE, MEMORY]) == [0]


STAGES = (
    Stage("a@0", "fitness", rung=0), Stage("cost", "cost"), Stage("a@1", "fitness", "a@0", rung=1),
    Stage("a", "fitness", "a@1"),
)  # fmt: skip


def paused(number: int, stage: str, rung: int, value: float, memory: float | None) -> Standing:
    cost = {} if memory is None else {"cost": {"memory": memory}}
    return Standing(number, stage, rung, {**cost, stage: {"o0": value}})


def test_asha_ranks_by_cost_from_the_rung_at_which_it_is_known() -> None:
    asha = Asha(STAGES, (VALUE, MEMORY), eta=2)
    for number, value in enumerate([0.1, 0.2, 0.3]):
        asha.heard(paused(number, "a@0", 0, value, None), "paused")
    assert asha.promote() == Promotion(2, 0), "the best value, cost unknown"
    # At rung 1 the first is dominated, the others are not; of these the larger value goes first.
    for number, value, memory in [(3, 0.9, 5.0), (4, 0.8, 1.0), (5, 0.7, 2.0), (6, 0.95, 4.0)]:
        asha.heard(paused(number, "a@1", 1, value, memory), "paused")
    assert asha.promote() == Promotion(6, 1)
    asha.promoted(Promotion(6, 1))
    assert asha.promote() == Promotion(4, 1), "0.9 is better than 0.8, but dominated by 0.95 at less cost"


def test_racing_stops_nobody_for_cost_and_spares_nobody_for_it() -> None:
    knobs = {"margin": 0.0, "best": 1}
    for memory, value, verdict in [(9.0, 0.6, "next"), (0.1, 0.4, "stop")]:
        racing = SCHEDULERS["racing"].make(STAGES, (VALUE, MEMORY), knobs)
        for number in range(2):
            measured = {"a@0": {"o0": 0.5}, "cost": {"memory": 1.0}, "a": {"o0": 0.5}}
            racing.heard(Standing(number, "a", None, measured), "evaluated")
        only_cost = Standing(7, "cost", None, {"cost": {"memory": memory}}, seen=2)
        assert racing.decide(only_cost).verdict == "next"
        both = Standing(7, "a@0", 0, {"cost": {"memory": memory}, "a@0": {"o0": value}}, seen=2)
        assert racing.decide(both).verdict == verdict

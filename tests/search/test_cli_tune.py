"""``search tune``: the options of evolve but one, a recipe of its own, and its refusals."""

import inspect
from pathlib import Path

import pytest
import yaml
from toy_catalog import toy_cli
from toy_command import shown

from layersearch.search import cli
from layersearch.search.recipe import Recipe
from layersearch.search.recipe_yaml import load_file

TOY = ("--space", "toy", "--backend", "inline", "--evaluations", "14")
RECIPES = Path(__file__).parents[2] / "runs" / "recipes"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAYERSEARCH_DATA", raising=False)
    return tmp_path


def test_options_are_those_of_evolve_with_a_sampler_for_the_driver() -> None:
    evolve, tune = ({*inspect.signature(command).parameters} for command in (cli.evolve, cli.tune))
    assert evolve - tune == {"driver", "replay"}
    assert tune - evolve == {"sampler"}
    assert {*Recipe.model_fields} == (evolve | tune | {"set"}) - {"set_", "recipe", "replay", "as_json"}


def test_a_run_says_which_sampler_and_its_recipe_makes_it_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(capsys, "tune", *TOY)
    assert (found["driver"], found["sampler"], found["counts"]["evaluated"]) == ("optuna", "tpe", 14)
    assert "suggested" in {entry["origin"] for entry in found["best"]}
    text = (folder / "runs/toy-0001/recipe.yaml").read_text()
    assert text.startswith("# search tune, layersearch")
    assert (yaml.safe_load(text)["driver"], yaml.safe_load(text)["sampler"]) == ("optuna", "tpe")
    for command in (["tune"], ["evolve"]):
        again = shown(capsys, *command, "--recipe", "runs/toy-0001/recipe.yaml")
        assert [e["genome"] for e in again["best"]] == [e["genome"] for e in found["best"]]
    other = shown(capsys, "tune", "--recipe", "runs/toy-0001/recipe.yaml", "--sampler", "nsga2")
    assert other["sampler"] == "nsga2"
    control = shown(capsys, "evolve", "--recipe", "runs/toy-0001/recipe.yaml", "--driver", "random")
    assert (control["driver"], control["sampler"]) == ("random", None)
    assert [row["driver"] for row in shown(capsys, "list")["runs"]] == ["optuna"] * 4 + ["random"]
    assert toy_cli("show", "toy-0001") == 0
    assert "driver optuna (tpe)" in capsys.readouterr().out


def test_a_finished_run_goes_on_and_is_exported_as_a_journal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown(capsys, "tune", *TOY)
    assert shown(capsys, "resume", "toy-0001", "--evaluations", "20")["counts"]["evaluated"] == 20
    assert toy_cli("export", "toy-0001", "--format", "optuna", "-o", "toy.journal") == 0
    out, err = capsys.readouterr()
    assert out.startswith("wrote toy.journal (optuna): ")
    assert "trials of study toy-0001" in out
    assert err == ""
    assert (folder / "toy.journal").stat().st_size > 1000


def test_refusals_are_one_sentence_and_nothing_is_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "r.yaml").write_text("space: toy\nsampler: tpe\n")
    for arguments, says in [
        (["tune", *TOY, "--sampler", "tpa"], "unknown sampler 'tpa'; did you mean 'tpe'?"),
        (["tune", *TOY, "--sampler", "cmaes"], "sampler 'cmaes' takes one objective, got 2"),
        (["tune", *TOY, "--sampler", "cmaes", "--set", "objectives=1"], "takes numbers only, but odd is a choice"),
        (["tune", *TOY, "--set", "driver.p_random=0.5"], "driver 'optuna' has no settings, got 'driver.p_random'"),
        (
            ["tune", *TOY, "--driver", "random"],
            "--driver must be left out of search tune, it is an option of search evolve",
        ),
        (
            ["evolve", *TOY, "--sampler", "tpe"],
            "--sampler must be left out of search evolve, it is an option of search tune",
        ),
        (["evolve", *TOY, "--driver", "optuna"], "got optuna, which is that of search tune; use search tune"),
        (["evolve", "--recipe", "r.yaml"], "sampler must be left out with driver 'evolution', got tpe"),
        (["tune"], "a space must be given"),
    ]:
        capsys.readouterr()
        assert toy_cli(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert says in err
        assert [path.name for path in folder.iterdir()] == ["r.yaml"], arguments


def test_the_recipe_of_the_benchmark_is_legal() -> None:
    recipe = Recipe.parse(load_file(RECIPES / "digits-tune.yaml")).completed(2)
    assert (recipe.driver, recipe.sampler, recipe.core_minutes) == ("optuna", "tpe", 4)
    arms = load_file(RECIPES / "digits-arms.yaml")
    assert {key: value for key, value in load_file(RECIPES / "digits-tune.yaml").items() if key in arms} == arms

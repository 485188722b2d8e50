"""The command line from the inside, on the toy space: what it prints, what it writes, and what it refuses."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from toy_catalog import ENTRY as ENTRY_OF_TOY
from toy_catalog import toy_cli
from toy_command import refused, shown

from layersearch.search import runs, session, show
from layersearch.search.store_reader import StoreReader
from layersearch.search.store_schema import SCHEMA_VERSION

TOY = ("evolve", "--space", "toy", "--backend", "inline")
COUNTS = {"asked", "screened_out", "duplicates", "rejected", "stopped", "failed", "in_flight", "paused", "evaluated"}
ENTRY = {"candidate", "formula", "genome", "fitness", "metrics", "parents", "origin", "known_as"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAYERSEARCH_DATA", raising=False)
    return tmp_path


def test_a_run_from_beginning_to_export_of_its_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, *TOY, "--evaluations", "20", "--seed", "3")
    assert found["run"] == "toy-0001"
    assert (found["space"], found["state"], found["seed"]) == ("toy", "finished", 3)
    counts = found["counts"]
    assert set(counts) == COUNTS
    assert counts["evaluated"] == 20
    parts = sum(counts[name] for name in COUNTS - {"asked", "rejected"}) + sum(counts["rejected"].values())
    assert counts["asked"] == parts
    assert len(found["best"]) == 10
    for entry in found["best"] + found["baselines"]:
        assert set(entry) >= ENTRY
    assert {entry["name"] for entry in found["baselines"]} == {"eight", "nine"}
    files = {path.name for path in (folder / "runs" / "toy-0001").iterdir()}
    assert {"recipe.yaml", "environment.json", "run.sqlite"} <= files
    assert not any(name.endswith(".draft") for name in files)
    assert "torch" in json.loads((folder / "runs/toy-0001/environment.json").read_text())["packages"]
    again = shown(capsys, "show", "toy-0001", "--top", "3")
    assert again["best"] == found["best"][:3]
    assert shown(capsys, "resume", "toy-0001") == found


def test_tables_show_the_funnel_the_best_with_formula_and_the_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli(*TOY, "--run", "mine", "--evaluations", "8") == 0
    out = capsys.readouterr().out
    for part in ("mine: space toy", "screen", "dedup", "quality", "evaluated", "too small", "y = ", "eight", "re-rank",
                 "test", "o1 ↓", "is the winner", "seed: ten"):  # fmt: skip
        assert part in out, part


def test_baselines_are_chosen_and_stay_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, *TOY, "--evaluations", "5", "--baselines", "nine")
    assert [entry["name"] for entry in found["baselines"]] == ["nine"]
    assert yaml.safe_load((folder / "runs/toy-0001/recipe.yaml").read_text())["baselines"] == ["nine"]
    found = shown(capsys, "resume", "toy-0001", "--evaluations", "9")
    assert [entry["name"] for entry in found["baselines"]] == ["nine"]

    assert shown(capsys, *TOY, "--evaluations", "5", "--baselines", "none")["baselines"] == []
    assert toy_cli("show", "toy-0002") == 0
    out = capsys.readouterr().out
    assert "re-rank" in out
    assert "test: the winner" in out
    assert "is the winner" in out
    assert "eight" not in out


def test_the_last_line_is_a_command_that_works_for_the_space(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert toy_cli(*TOY, "--run", "mine", "--evaluations", "3") == 0
    assert capsys.readouterr().out.endswith("search export mine --candidate best --format python -o layer.py\n")
    monkeypatch.setattr(show, "SPACES", {"toy": replace(ENTRY_OF_TOY, network=True)})
    assert toy_cli("show", "mine") == 0
    assert capsys.readouterr().out.endswith("--format python -o net.py --weights\n")


def test_an_effective_recipe_makes_the_same_run_under_another_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = shown(capsys, *TOY, "--evaluations", "9", "--seed", "5", "--set", "size=500")
    b = shown(capsys, "evolve", "--recipe", "runs/toy-0001/recipe.yaml")
    assert b["run"] == "toy-0002"
    assert a["best"][0]["genome"] == b["best"][0]["genome"]
    assert a["counts"] == b["counts"]
    c = shown(capsys, "evolve", "--recipe", "runs/toy-0001/recipe.yaml", "--seed", "6")
    assert [e["genome"] for e in c["best"]] != [e["genome"] for e in a["best"]]


def test_a_scheduler_by_option_recipe_and_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--scheduler", "asha", "--set", "scheduler.eta=2", "--evaluations")
    found = shown(capsys, *TOY, "--run", "a", *options, "6")
    assert found["scheduler"] == "asha"
    assert found["saved"]["steps"] > 0
    assert [row["rung"] for row in found["saved"]["rungs"]] == [0, 1]
    recipe = yaml.safe_load((folder / "runs/a/recipe.yaml").read_text())
    assert (recipe["scheduler"], recipe["set"]["scheduler.eta"]) == ("asha", 2)
    with StoreReader(folder / "runs/a") as reader:
        assert reader.meta("run")["scheduler_settings"] == {"eta": 2}
        assert reader.meta("space")["settings"]["ratio"] == 2
        assert len(reader.promotions()) >= 12
    again = shown(capsys, "evolve", "--recipe", "runs/a/recipe.yaml", "--run", "b")
    assert [e["fitness"] for e in again["best"]] == [e["fitness"] for e in found["best"]]
    assert again["counts"] == found["counts"]
    longer = shown(capsys, "resume", "a", "--evaluations", "9")
    assert longer["counts"]["evaluated"] == 9
    assert toy_cli("show", "a") == 0
    out = capsys.readouterr().out
    assert "scheduler asha" in out
    assert "saved against straight" in out
    assert "promoted" in out
    assert shown(capsys, *TOY, "--evaluations", "3")["saved"] is None


def test_what_was_planned_is_part_of_the_recipe_and_of_the_store(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(capsys, *TOY, "--evaluations", "3")
    recipe = yaml.safe_load((folder / "runs/toy-0001/recipe.yaml").read_text())
    assert (recipe["lowering"], recipe["set"]) == ("torch", {"lowering.swap_step": 3})
    with StoreReader(folder / "runs/toy-0001") as reader:
        assert reader.meta("space")["settings"]["lowering"] == {"name": "torch", "swap_step": 3}


def test_a_finished_run_says_so_and_can_be_extended(capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli(*TOY, "--evaluations", "6") == 0
    capsys.readouterr()
    assert toy_cli("resume", "toy-0001") == 0
    assert "toy-0001 is finished" in capsys.readouterr().err
    assert shown(capsys, "resume", "toy-0001", "--evaluations", "15")["counts"]["evaluated"] == 15
    assert shown(capsys, "resume", "toy-0001")["counts"]["evaluated"] == 15, "the later end is remembered"
    assert "resumes" not in refused(capsys, "resume", "toy-0001", "--evaluations", "20", "--minutes", "1")
    assert "got 'x'" in refused(capsys, "resume", "toy-0001", "--evaluations", "x")


def test_a_run_that_died_before_its_store_resumes_from_its_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    whole = shown(capsys, *TOY, "--evaluations", "8", "--seed", "4")
    monkeypatch.setattr(session, "Runner", die)
    with pytest.raises(Died):
        toy_cli(*TOY, "--evaluations", "8", "--seed", "4")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert sorted(path.name for path in (folder / "runs/toy-0002").iterdir()) == ["environment.json", "recipe.yaml"]
    assert "no store yet" in refused(capsys, "show", "toy-0002")
    rows = shown(capsys, "list")["runs"]
    assert [(row["run"], row["state"]) for row in rows] == [("toy-0001", "finished"), ("toy-0002", "interrupted")]
    (folder / "runs/toy-0002/run.sqlite").touch()  # killed while the store was made
    resumed = shown(capsys, "resume", "toy-0002")
    for key in ("genome", "fitness"):
        assert [entry[key] for entry in resumed["best"]] == [entry[key] for entry in whole["best"]]


def test_a_run_folder_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs/mine").mkdir(parents=True)
    (folder / "runs/mine/notes").write_text("keep")
    assert "search resume mine" in refused(capsys, *TOY, "--run", "mine")
    assert [path.name for path in (folder / "runs/mine").iterdir()] == ["notes"]


def test_nothing_is_made_for_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in [
        (["--set", "broken=data"], "the toy data must be there"),
        (["--set", "nonsense=1"], "unknown setting 'nonsense'"),
        (["--set", "driver.nonsense=1"], "nonsense"),
        (["--driver", "evoluton"], "unknown driver 'evoluton'; did you mean 'evolution'?"),
        (["--scheduler", "asah"], "unknown scheduler 'asah'; did you mean 'asha'?"),
        (["--scheduler", "asha", "--set", "scheduler.eta=1"], "scheduler.eta must be a whole number ≥ 2, got 1"),
        (["--scheduler", "asha", "--set", "scheduler.eta=x"], "scheduler.eta must be a number, got 'x'"),
        (["--scheduler", "asha", "--set", "scheduler.best=3"], "unknown setting 'scheduler.best'"),
        (["--scheduler", "asha", "--set", "ratio=0"], "scheduler asha must have rungs"),
        (["--set", "scheduler.eta=3"], "scheduler 'straight' has no settings, got 'scheduler.eta'"),
        (["--preset", "paper"], "unknown preset 'paper'"),
        (["--baselines", "eight,none"], "unknown baseline 'none'; did you mean 'nine'? (known: eight, nine)"),
        (["--series", "b"], "series must be left out for the space toy"),
        (["--evaluations", "nan"], "'evaluations' must be a valid integer, got 'nan'"),
        (["--minutes", ".nan"], "'minutes' must be a finite number"),
        (["--minutes", "1", "--evaluations", "1"], "one end"),
        (["--run", "../x"], "letters, digits"),
        (["--run", ""], "letters, digits"),
        (["--run", ".."], "letters, digits"),
        (["--device", "cuda:999"], "device must be there"),
        (["--recipe", "none.yaml"], "must be a readable file"),
    ]:
        assert says in refused(capsys, *TOY, *arguments)
        assert list(folder.iterdir()) == [], arguments


def test_the_parser_speaks_in_one_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in [
        (
            [],
            "a command must be given (evolve, tune, resume, submit, status, logs, stop, fetch, list, show, ",
        ),
        (["evolv"], "unknown command 'evolv'; did you mean 'evolve'?"),
        (["evolve", "--spcae", "toy"], "unknown option '--spcae'; did you mean '--space'?"),
        (["evolve", "--space"], "requires an argument"),
        (["evolve", "toy"], "unexpected extra argument"),
        (["show"], "NAME must be given"),
        (["show", "x", "--json=1"], "does not take a value"),
        (["export", "x"], "--out must be given"),
        (["show", "x", "--top", "0"], "named 'x'"),
        (["evolve"], "a space must be given"),
    ]:
        assert says in refused(capsys, *arguments)


def test_runs_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli(*TOY, "--evaluations", "3", "--run", "alpha") == 0
    for command in ("show", "resume"):
        assert "did you mean 'alpha'?" in refused(capsys, command, "alhpa")
        assert "letters, digits" in refused(capsys, command, "../runs/alpha")
        assert "there is none named 'alpha'" in refused(capsys, command, "alpha", "--runs-dir", "elsewhere")
    (folder / "file").touch()
    for command in (["show", "alpha"], ["resume", "alpha"], ["list"], [*TOY]):
        assert "Not a directory" in refused(capsys, *command, "--runs-dir", "file")


def test_stores_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli(*TOY, "--evaluations", "3") == 0
    store = folder / "runs/toy-0001/run.sqlite"
    with sqlite3.connect(store) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = store.read_bytes()
    for command in ("show", "resume"):
        assert "upgrade layersearch" in refused(capsys, command, "toy-0001")
    assert store.read_bytes() == before
    row = shown(capsys, "list")["runs"][0]
    assert row["state"] == "unreadable"
    assert "upgrade" in row["reason"]
    (folder / "runs/odd").mkdir()
    (folder / "runs/odd/recipe.yaml").write_text("space: 3\ndata: [1]\nevaluations: {a: b}\n")
    assert toy_cli("list") == 0
    store.write_text("something else, and long enough")
    assert "not a store" in refused(capsys, "show", "toy-0001")


def test_a_full_disk_is_no_bad_input_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "fsync", full)
    assert toy_cli(*TOY) == 1
    assert "make room" in capsys.readouterr().err
    assert list((folder / "runs").iterdir()) == []


def test_names_are_the_next_free_number(folder: Path) -> None:
    for name in ("toy-0007", "toy-0009x", "other-0100"):
        (folder / name).mkdir()
    assert runs.create_run(folder, None, "toy", {"recipe.yaml": ""}).name == "toy-0008"
    assert runs.create_run(folder, None, "toy", {"recipe.yaml": ""}).name == "toy-0009"
    (folder / "toy-9999").mkdir()
    assert runs.create_run(folder, None, "toy", {"recipe.yaml": ""}).name == "toy-10000"


def test_a_run_that_is_being_made_has_no_name_yet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = folder / "runs" / ".new-1-2"  # by a kill
    left.mkdir(parents=True)
    (left / "recipe.yaml").write_text("space: toy\n")
    assert shown(capsys, "list")["runs"] == []
    assert "the name of a run" in refused(capsys, "resume", ".new-1-2")
    (folder / "runs" / "mine").mkdir()
    assert "exists" in refused(capsys, *TOY, "--run", "mine")
    assert sorted(path.name for path in (folder / "runs").iterdir()) == [".new-1-2", "mine"]


def test_list_and_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli("list") == 0
    assert "no runs in runs yet" in capsys.readouterr().out
    assert toy_cli(*TOY, "--evaluations", "3") == 0
    (row,) = shown(capsys, "list")["runs"]
    assert (row["space"], row["evaluated"], row["evaluations"], row["state"]) == ("toy", 3, 3, "finished")
    assert row["best"] is not None
    assert toy_cli("list") == 0
    assert "toy-0001" in capsys.readouterr().out
    names = {space["name"]: space for space in shown(capsys, "spaces")["spaces"]}
    assert "digits" in names["evonorm"]["data"]
    assert toy_cli("spaces") == 0
    assert "evonorm" in capsys.readouterr().out


def test_doctor_says_what_is_there_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "doctor", "--space", "toy", "--data-dir", "there")
    assert found["data"] == {"bad": "'bad' must be in there; put it there", "good": None}
    assert found["packages"]["torch"]
    assert found["cores"] >= 1
    assert found["gpu"]["devices"] or found["gpu"]["reason"]
    assert found["calibration"][0]["wrong"] == []
    assert toy_cli("doctor", "--space", "toy") == 0
    out = capsys.readouterr().out
    for part in ("compilers", "lowerings", "GPU", "bad", "5/5  0.3", "limit", "every known layer passes"):
        assert part in out, part


@pytest.mark.parametrize("space", ["evonorm", "kan", "skan", "optfs"])
def test_doctor_knows_the_data_of_every_space(capsys: pytest.CaptureFixture[str], tmp_path: Path, space: str) -> None:
    found = shown(capsys, "doctor", "--space", space, "--data-dir", str(tmp_path))
    assert any(found["data"].values()), "some need files, and there are none"
    assert not all(found["data"].values())
    for option in (["--data", "x"], ["--preset", "huge"], ["--set", "a=1"], ["--series", "b"]):
        says = f"{option[0]} must come with --calibrate, got it alone"
        assert says in refused(capsys, "doctor", "--space", space, *option)


def test_a_run_that_ended_goes_on_only_where_its_device_is(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Its winner stays otherwise."""
    assert toy_cli(*TOY, "--run", "mine", "--evaluations", "3") == 0
    before = shown(capsys, "show", "mine")
    assert "device must be there" in refused(capsys, "resume", "mine", "--evaluations", "5", "--device", "cuda:999")
    assert shown(capsys, "show", "mine")["winner"] == before["winner"] is not None
    assert toy_cli("resume", "mine", "--evaluations", "5", "--device", "auto") == 0
    assert shown(capsys, "show", "mine")["counts"]["evaluated"] == 5


def test_home_is_meant_by_a_tilde(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert toy_cli(*TOY, "--run", "mine", "--evaluations", "2", "--runs-dir=~/runs") == 0
    assert (tmp_path / "home" / "runs" / "mine").is_dir()
    assert not Path("~").exists()
    assert [run["run"] for run in shown(capsys, "list", "--runs-dir=~/runs")["runs"]] == ["mine"]
    assert shown(capsys, "show", "mine", "--runs-dir=~/runs")["state"] == "finished"
    assert shown(capsys, "doctor", "--space", "toy", "--data-dir=~/there")["data_dir"] == str(tmp_path / "home/there")


def test_a_calibration_that_fails_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    calibrate = ("doctor", "--calibrate", "--space", "toy", "--seeds", "3")
    assert toy_cli(*calibrate) == 0
    assert "3/3" in capsys.readouterr().out
    assert toy_cli(*calibrate, "--set", "size=10") == 1
    out, err = capsys.readouterr()
    assert "not to be trusted: ten must pass quality" in out
    assert "passes" in err
    assert toy_cli(*calibrate, "--set", "size=10", "--json") == 1
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["rows"][0]["worst"] is None
    assert "--seeds must be a whole number in [1, 1000], got '0'" in refused(capsys, *calibrate[:-1], "0")


def test_export_of_a_known_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ("export", "--space", "evonorm", "--genome", "known:evonorm-s1", "--exact", "-o", "layer.py")
    assert toy_cli(*known) == 0
    assert "wrote layer.py" in capsys.readouterr().out
    assert "class EvoNormS1" in (folder / "layer.py").read_text()
    assert "layer.py" in refused(capsys, *known), "nothing is overwritten"
    assert shown(capsys, *known, "--force")["export"]["class"] == "EvoNormS1"
    assert "unknown format 'pyhton'; did you mean 'python'?" in refused(capsys, *known, "--format", "pyhton", "--force")
    assert "there is none named 'none'" in refused(capsys, "export", "none", "-o", "other.py")


def test_numbers_that_are_none_are_null_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy_cli(*TOY, "--evaluations", "3") == 0
    with sqlite3.connect(folder / "runs/toy-0001/run.sqlite") as db:
        db.execute("""UPDATE results SET metrics = '{"loss": NaN, "other": Infinity}' WHERE stage = 'quality'""")
    db.close()
    capsys.readouterr()
    assert toy_cli("show", "toy-0001", "--json") == 0

    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["best"][0]["metrics"]["loss"] is None

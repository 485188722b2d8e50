"""search on the optfs space, from a table and its schema to files that run without layersearch."""

import contextlib
import csv
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from alone import alone

from layersearch.search.cli import main

SCHEMA = {
    "label": "click",
    "columns": ["city", {"name": "item", "min_count": 2}, {"name": "age", "kind": "numeric", "bins": 4}, "noise"],
    "missing": ["", "NA"],
}
TINY = [
    "search.models=[fm, lr]", "search.search_epochs=[4]", "search.dims=[2]", "search.lr=[0.02, 0.05]",
    "search.operators=[inner]", "task.reviews=1", "task.warm_epochs=1", "task.batch=100", "task.epochs=2",
    "task.decay=0", "task.std=0.1", "funnel.rerank_seeds=2",
]  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = random.Random(0)
    rows = []
    for _ in range(1500):
        city, item, age, noise = rng.randrange(6), rng.randrange(20), rng.randrange(18, 80), rng.randrange(30)
        chance = 0.9 if item % 4 == 0 else 0.5 if city < 2 else 0.15
        shown = "NA" if age == 30 else str(age)
        rows.append([f"c{city}", f"i{item}", shown, f"n{noise}", int(rng.random() < chance)])
    path = tmp_path / "clicks.csv"
    _write(path, rows)
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    return path


def _write(path: Path, rows: list[list[Any]], header: str = "city,item,age,noise,click") -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def tiny(command: str, table: Path, *more: str, schema: bool = True) -> int:
    sets = [*TINY, f"task.schema={table.parent / 'schema.yaml'}"] if schema else TINY
    words = [word for pair in sets for word in ("--set", pair)]
    run = ["--runs-dir", str(table.parent / "runs"), "--workers", "1", "--device", "cpu", "--evaluations", "3"]
    return main([command, "--space", "optfs", "--data", str(table), *run, "--rerank-top", "2", *words, *more])


@pytest.mark.slow
def test_from_a_table_to_files_of_their_own(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, folder = ["--runs-dir", str(table.parent / "runs")], table.parent
    assert tiny("evolve", table, "--json", "--set", "search.gates=[value, value+pair]") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished"
    assert [(o["name"], o["maximize"], o["weight"]) for o in found["objectives"]] == [
        ("auc", True, 1.0),
        ("ratio", False, 0.0),
    ]
    winner = next(e for e in found["best"] if e["candidate"] == found["winner"])
    controls = {b["name"]: b for b in found["baselines"]}
    assert winner["test"]["auc"]["n"] == 2
    for name in ("frequency", "random"):
        control = controls[f"{name} of #{found['winner']}"]
        for kind in ("rerank", "test"):
            assert control[kind]["auc"]["n"] == 2
            assert control[kind]["ratio"]["mean"] == pytest.approx(winner["rerank"]["ratio"]["mean"], abs=0.02)
        assert set(control["fitness"]) == {"auc", "ratio"}
    assert controls["full"]["test"]["ratio"]["mean"] == 1
    assert main(["show", "optfs-0001", *runs]) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"random of #{found['winner']}") == 3  # in the tables of search, re-rank and test

    out = folder / "net.py"
    assert main(["export", "optfs-0001", *runs, "-o", str(out), "--weights", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["export"]
    assert told["max_error"] < 1e-9
    assert told["measured"]["auc"] > 0.6
    code = (
        "import sys, csv, torch\n"
        "from net import Model\n"
        "assert not any(name.startswith(('layersearch', 'safetensors')) for name in sys.modules)\n"
        "model = Model.load('net.safetensors')\n"
        "rows = list(csv.DictReader(open('clicks.csv')))\n"
        "p = model.predict({name: [row[name] for row in rows] for name in ('city', 'item', 'age', 'noise')})\n"
        "y = torch.tensor([int(row['click']) for row in rows])\n"
        "print(float(p[y == 1].mean() - p[y == 0].mean()), len(model.table))\n"
        "model.predict({'city': ['atlantis'], 'item': [None], 'age': [float('nan')], 'noise': ['n1']})\n"
    )
    said = alone(code, folder)
    gap, rows = map(float, said.split())
    assert gap > 0.1
    assert rows < 60

    for suffix in ("json", "csv"):
        export = ["export", "optfs-0001", *runs, "--format", "features", "-o", str(folder / f"features.{suffix}")]
        assert main(export) == 0
        assert "values" in capsys.readouterr().out
    features = json.loads((folder / "features.json").read_text())
    listed = list(csv.DictReader((folder / "features.csv").open()))
    assert features["kept"] == len(listed) == int(rows) - 1
    assert all(int(row["count"]) > 0 for row in listed)
    assert main(["export", "optfs-0001", *runs, "--format", "features", "-o", str(folder / "f.xlsx")]) == 2
    assert ".csv or .json" in capsys.readouterr().err


@pytest.mark.slow
def test_tune_finds_a_front(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny("tune", table, "--json", "--set", "search.gates=[field, value]") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sampler"] == "tpe"
    assert found["front"]


@pytest.mark.slow
def test_a_libsvm_file_and_an_interrupted_run(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    for part, n in (("train", 900), ("validation", 300), ("test", 300)):
        lines = []
        for _ in range(n):
            a, b = rng.randrange(8), rng.randrange(9)
            lines.append(f"{int(rng.random() < (0.8 if a < 3 else 0.2))} {a}:1 {10 + b}:1")
        (table.parent / f"{part}.libsvm").write_text("\n".join(lines) + "\n")
    files = [f"task.{part}={table.parent / part}.libsvm" for part in ("validation", "test")]
    sets = [word for pair in files for word in ("--set", pair)]
    train = table.parent / "train.libsvm"
    assert tiny("evolve", train, *sets, "--json", schema=False) == 0
    once = json.loads(capsys.readouterr().out)
    assert once["best"][0]["fitness"]["auc"] > 0.7
    assert tiny("evolve", train, *sets, "--json", "--evaluations", "1", "--run", "again", schema=False) == 0
    capsys.readouterr()
    again = ["again", "--runs-dir", str(table.parent / "runs"), "--evaluations", "3", "--json"]
    assert main(["resume", *again]) == 0
    longer = json.loads(capsys.readouterr().out)
    assert [e["fitness"] for e in longer["best"]] == [e["fitness"] for e in once["best"]]


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs-dir", str(table.parent / "runs")]
    assert tiny("evolve", table, "--evaluations", "1", "--rerank-top", "0") == 0
    recipe = (table.parent / "runs" / "optfs-0001" / "recipe.yaml").read_text()
    assert "content" not in recipe, "others may follow the recipe with their own data"
    text = table.read_text()
    table.write_text(text.replace("c1,", "c2,"))
    export = ["export", "optfs-0001", *runs]
    calls = (
        ["resume", "optfs-0001", *runs, "--evaluations", "2"],
        ["evolve", "--replay", "optfs-0001", *runs],
        [*export, "--weights", "-o", str(table.parent / "net.py")],
        [*export, "--format", "features", "-o", str(table.parent / "f.json")],
    )
    capsys.readouterr()
    for call in calls:
        assert main(call) == 2
        told = capsys.readouterr().err
        assert "clicks.csv must be as the run began with, and was changed since; restore it or begin a new run" in told
        assert told.count("\n") == 1
    table.write_text(text)
    assert main(calls[3]) == 0
    table.write_text(text.replace("c1,", "c2,"))
    with contextlib.closing(sqlite3.connect(table.parent / "runs" / "optfs-0001" / "run.sqlite")) as store, store:
        (space,) = store.execute("SELECT value FROM meta WHERE key = 'space'").fetchone()
        older = json.loads(space)
        assert len(older["settings"]["task"].pop("content")) == 32
        store.execute("UPDATE meta SET value = ? WHERE key = 'space'", (json.dumps(older),))
    assert main([*calls[3], "--force"]) == 0, "a run of before contents were noted"


def _cell(path: Path, row: int, column: int, text: str) -> None:
    lines = path.read_text().splitlines()
    cells = lines[row].split(",")
    cells[column] = text
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


def _each(path: Path, column: int, text: str) -> None:
    for row in range(1, len(path.read_text().splitlines())):
        _cell(path, row, column, text)


@pytest.mark.parametrize(
    ("change", "more", "sentence"),
    [
        (lambda p: p.write_text(p.read_text().replace("noise", "nose", 1)), (), "one column 'noise', it has none"),
        (lambda p: _cell(p, 7, 4, "2"), (), "column 'click' in row 7 of clicks.csv must be 0 or 1"),
        (lambda p: _cell(p, 7, 4, ""), (), "column 'click' in row 7"),
        (lambda p: _each(p, 0, "NA"), (), "column 'city' must have a value in some training row"),
        (lambda p: _each(p, 2, "nan"), (), "column 'age' must have a value in some training row"),
        (lambda p: _cell(p, 9, 2, "old"), (), "column 'age' in row 9 of clicks.csv must be a number, got 'old'"),
        (lambda p: _cell(p, 9, 2, "inf"), (), "column 'age' in row 9 of clicks.csv must be finite"),
        (lambda p: _cell(p, 5, 0, "a,b"), (), "must have 5 columns, row 5 has 6"),
        (lambda p: _each(p, 4, "1"), (), "must have clicks and rows without"),
        (lambda p: p.write_text(""), (), "an empty file"),
        (lambda p: p.write_text(p.read_text().splitlines()[0] + "\n"), (), "part must have rows, got none"),
        (lambda p: p.unlink(), (), "is missing"),
        (lambda p: None, ("--set", "task.batch=5000"), "task.batch must be at most"),
        (lambda p: None, ("--set", "search.rewind_epochs=[4]"), "below search.search_epochs, got 4 of 4"),
        (lambda p: None, ("--set", "search.ratio=[0, 0.5]"), "search.ratio must be least and most"),
        (lambda p: None, ("--set", "search.ratio=[0.5, 1.5]"), "search.ratio must be least and most"),
        (lambda p: None, ("--set", "task.schema=none.yaml"), "cannot be read"),
        (lambda p: None, ("--set", "task.schema={label: click, columns: [city]}"), "at least 2 fields"),
        (lambda p: None, ("--set", "task.schema={label: click, columns: [city, citi], x: 1}"), "unknown key"),
        (lambda p: None, ("--set", "task.schema=null"), "must be described, got no schema"),
        (lambda p: None, ("--set", "task.test=t.csv"), "got none for validation"),
        (lambda p: None, ("--data", "clicks.xlsx"), "unknown data set 'clicks.xlsx'"),
        (lambda p: None, ("--data", "frappe"), "'frappe' is a set with fields of its own"),
        (lambda p: None, ("--series", "b"), "series must be left out"),
        (lambda p: None, ("--lowering", "c"), "unknown lowering of the space optfs"),
        (lambda p: None, ("--seed-layers", "bn-relu"), "unknown design 'bn-relu'"),
    ],
    ids=[
        "missing column", "label 2", "label missing", "field missing", "numbers missing", "no number", "infinite",
        "broken row", "one class", "empty", "no rows", "no file", "batch", "rewind", "ratio 0", "ratio 1.5",
        "no schema file", "one field", "unknown key", "no schema", "no validation", "ending", "set", "series",
        "lowering", "design",
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    table: Path, capsys: pytest.CaptureFixture[str], change: Any, more: tuple[str, ...], sentence: str
) -> None:
    change(table)
    assert tiny("evolve", table, *more) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not (table.parent / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--genome", "known:optf"], "did you mean 'optfs'"),
        (["--genome", "known:optfs", "--format", "onnx"], "format must be python or features"),
        (["--genome", "known:optfs", "--format", "features"], "give the name of a run"),
        (["--genome", "known:optfs", "--format", "features", "--weights"], "takes neither"),
        (["--genome", "known:optfs", "--weights"], "give the name of a run"),
    ],
    ids=str,
)
def test_bad_exports_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    out = tmp_path / ("x.json" if "features" in arguments else "x.py")
    assert main(["export", "--space", "optfs", "-o", str(out), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_named_design_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import layersearch
    from layersearch.errors import BadInputError

    out = tmp_path / "optfs.py"
    assert main(["export", "--space", "optfs", "--genome", "known:optfs", "-o", str(out)]) == 0
    assert "value gates" in capsys.readouterr().out
    design = layersearch.known("optfs", "optfs")
    assert design.formula in out.read_text()
    assert design.latex.startswith(r"\text{")
    with pytest.raises(BadInputError, match="export it from a run"):
        design.module(5, out_features=1)


@pytest.mark.slow
@pytest.mark.data
def test_prepared_sets(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--runs-dir", str(tmp_path), "--workers", "1", "--evaluations", "1", "--rerank-top", "0", "--json"]
    sets = ["search.models=[lr]", "search.reference=lr", "search.search_epochs=[2]", "search.rewind_epochs=[0]",
            "task.reviews=0", "task.epochs=1", "funnel.rerank_seeds=1"]  # fmt: skip
    words = [word for pair in sets for word in ("--set", pair)]
    space = ["tune", "--space", "optfs", "--data", "movielens", "--preset", "small", "--data-dir", str(data_dir)]
    assert main([*space, *run, *words]) == 0
    assert json.loads(capsys.readouterr().out)["best"][0]["fitness"]["auc"] > 0.7

"""What is exported computes what was trained, from raw values, with rows for what was selected alone."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from histories import with_history

from layersearch.errors import BadInputError
from layersearch.spaces.optfs.evaluate import make_learner
from layersearch.spaces.optfs.export import exported_state, features, python_file, trained
from layersearch.spaces.optfs.genome import OptFSGenome, to_json
from layersearch.spaces.optfs.model_source import model_source
from layersearch.spaces.optfs.settings import TaskSettings, effective, parse
from layersearch.spaces.optfs.space import OptFSSpace
from layersearch.spaces.tasks.ctr.arrays import to_arrays
from layersearch.spaces.tasks.ctr.data import CTRData, Part
from layersearch.spaces.tasks.ctr.metrics import auc
from layersearch.spaces.tasks.ctr.models.base import MODELS
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted
from layersearch.spaces.tasks.ctr.prepare import read_tables
from layersearch.spaces.tasks.ctr.schema import Schema
from layersearch.spaces.tasks.ctr.vocabulary import MISSING

TASKS = [
    {},
    {"activation": "dice", "hidden": (6,), "dropout": 0.2},
    {"activation": "prelu", "hidden": (), "batch_norm": True},
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("changes", TASKS, ids=str)
def test_every_model_is_written_exactly(name: str, changes: dict[str, Any]) -> None:
    task = TaskSettings(data="planted", **changes)
    operators = ("inner", "matrix", "weighted") if MODELS[name].has_operator else ("own",)
    granularities = ("value", "product") if MODELS[name].has_pairs else ("value",)
    for operator, gates in itertools.product(operators, granularities):
        genome = OptFSGenome(model=name, operator=operator, gates=gates, dim=3).tidy()
        file = python_file(to_json(genome), None, 4)
        namespace: dict[str, Any] = {"__name__": "exported"}
        exec(compile(model_source(genome, task), "exported", "exec"), namespace)
        assert "layersearch" not in file.body
        from layersearch.spaces.optfs.export import _difference

        assert _difference(genome, task, namespace) < 1e-12


@pytest.mark.parametrize(
    ("gates", "right", "wrong"), [("value", "[:, i, j] * pairs", "[:, i, j]"), ("product", " * paired[:, j]", "")]
)
def test_a_wrong_file_is_noticed(gates: str, right: str, wrong: str) -> None:
    genome = OptFSGenome(model="ipnn", gates=gates, dim=3).tidy()
    file = python_file(to_json(genome), None, 4)
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(file.body.replace(right, wrong), "exported", "exec"), namespace)
    assert file.check(namespace) > 1e-3


def _model(data: CTRData, genome: OptFSGenome, schema: Schema | None = None) -> tuple[Any, np.ndarray[Any, Any], Any]:
    """The exported class with trained weights, logits of the test part as they were measured, and the pruned model."""
    task = TaskSettings(data="planted", batch=200, epochs=1, warm_epochs=1, std=0.1, gate_lr=0.05, hidden=(4,))
    learner = make_learner(genome, task, data, 3)
    learner.run()
    pruned = learner.pruned()
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(model_source(genome, task), "exported", "exec"), namespace)
    state = exported_state(pruned, data, schema.sequence if schema else None)
    return namespace["Model"].of(state), learner.logits("test"), pruned


def _texts(data: CTRData, ids: np.ndarray[Any, Any]) -> dict[str, list[str]]:
    return {
        name: ["never seen" if k == low else data.vocabulary[f][k - low - 1] for k in ids[:, f].tolist()]
        for f, (name, low) in enumerate(zip(data.fields, data.offsets, strict=True))
    }


TASK = PlantedSettings(
    mains=2, couples=0, noise=2, values=24, every=3, main_effect=2.0, exponent=0.3, rows=(2000, 200, 100)
)


def test_raw_values_give_the_same_numbers_and_the_table_is_smaller() -> None:
    data = planted(0, TASK)
    genome = OptFSGenome(model="deepfm", search_epochs=4, price=2.0, lr=0.02).tidy()
    model, expected, pruned = _model(data, genome)
    ids = data.test.ids
    texts = _texts(data, ids)
    got = model.predict(texts)
    np.testing.assert_allclose(got.numpy(), 1 / (1 + np.exp(-expected)), rtol=1e-5)
    assert len(model.table) == len(pruned.table.weight) < 0.7 * sum(data.sizes)
    unseen = {name: ["never seen"] * 3 for name in data.fields}
    with torch.no_grad():
        zero = model(torch.full((3, 4), len(model.table) - 1))
    torch.testing.assert_close(model.predict(unseen), zero.sigmoid())


@pytest.mark.parametrize("gates", ["product", "product-frequency", "product-random"])
@pytest.mark.parametrize("name", ["fm", "dcnv2"])
def test_gates_of_products_are_exported(name: str, gates: str) -> None:
    data = planted(0, TASK)
    ratio = {"ratio": 0.3, "pressure": "ratio"}
    genome = OptFSGenome(model=name, gates=gates, search_epochs=4, lr=0.05, **ratio).tidy()  # type: ignore[arg-type]
    model, expected, pruned = _model(data, genome)
    assert int(model.paired.sum()) == round(0.3 * sum(data.sizes))
    assert len(model.table) == len(pruned.table.weight) == sum(data.sizes) + 1
    got = model.predict(_texts(data, data.test.ids))
    np.testing.assert_allclose(got.numpy(), 1 / (1 + np.exp(-expected)), atol=1e-6)
    model.paired.fill_(1)
    assert (model.predict(_texts(data, data.test.ids)) - got).abs().max() > 1e-3


def test_unknown_values_use_the_row_of_their_field_where_training_had_some() -> None:
    data = planted(0, TASK)
    ids = data.train.ids.copy()
    ids[ids == 3] = 0  # as if value 3 had been too rare
    data = replace(data, train=Part(ids, data.train.labels))
    model, _, pruned = _model(data, OptFSGenome(model="lr", gates="random", ratio=1.0, lr=0.02).tidy())
    assert pruned.table.place is not None
    low = model.known["fields"][0]
    assert low["other"] == int(pruned.table.place[0]) != len(model.table) - 1
    rows = model.rows({name: ["never seen", "v1"] for name in data.fields})[0]
    assert rows[0, 0] == low["other"]
    assert rows[1, 0] == int(pruned.table.place[1])


def test_numbers_and_missing_values_are_encoded_as_by_the_reader() -> None:
    data = planted(0, TASK)
    bins = {0: tuple(float(x) for x in range(23))}
    data = replace(data, bins=bins, missing=("", "NA"))
    model, _, _ = _model(data, OptFSGenome(model="lr", gates="none", lr=0.02).tidy())
    values: dict[str, list[Any]] = {name: ["v1"] * 5 for name in data.fields[1:]}
    values[data.fields[0]] = [-1, 0, 0.5, None, "NA"]
    assert model.rows(values)[0][:, 0].tolist() == [2, 3, 3, 1, 1]
    values[data.fields[0]] = [np.float64(-1), "0", np.float32(0.5), math.nan, ""]
    assert model.rows(values)[0][:, 0].tolist() == [2, 3, 3, 1, 1]
    values[data.fields[0]] = [False, np.True_, "true", NotComparable(), np.int64(1)]
    assert model.rows(values)[0][:, 0].tolist() == [3, 4, 4, 1, 4]


class NotComparable:
    """Like ``pandas.NA``."""

    def __str__(self) -> str:
        return "<NA>"

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize("missing", [("", "NA"), ("NA",)])
def test_values_of_a_category_are_read_as_in_training(missing: tuple[str, ...]) -> None:
    """Blank cells come back from a data frame as NaN, and whole numbers beside them as floats."""
    data = planted(0, replace(TASK, rows=(400, 50, 50)))
    texts = (MISSING, "3", "4.0", "b", *data.vocabulary[0][4:])
    data = replace(data, vocabulary=(texts, *data.vocabulary[1:]), missing=missing)
    model, _, _ = _model(data, OptFSGenome(model="lr", gates="none", lr=0.02).tidy())
    others: dict[str, list[Any]] = {name: ["v1"] * 6 for name in data.fields[1:]}

    def rows(*values: Any) -> list[int]:
        found: list[int] = model.rows(
            {name: v[: len(values)] for name, v in others.items()} | {data.fields[0]: values}
        )[0][:, 0].tolist()
        return found

    assert rows(math.nan, np.float32("nan"), None, NotComparable(), "NA", "") == [1] * 6
    assert rows(3, 3.0, np.float32(3), np.int64(3), "3") == [2] * 5
    assert rows(4.0, np.float64(4), "4.0") == [3] * 3
    assert rows(b"b", "b", np.str_("b")) == [4] * 3
    assert rows("3.5", 3.5, 5.0) == [0] * 3


@pytest.mark.parametrize("name", MODELS)
def test_no_rows_have_no_predictions(name: str) -> None:
    data = with_history(planted(0, replace(TASK, rows=(400, 50, 50))))
    model, _, _ = _model(data, OptFSGenome(model=name, gates="none").tidy())
    empty: dict[str, list[str]] = {column: [] for column in (*data.fields, "history")}
    assert model.predict(empty).shape == (0,)
    without = "history" if name == "din" else data.fields[-1]
    with pytest.raises(ValueError, match=rf"a list for each of \[.*\], got none for \['{without}'\]"):
        model.predict({column: values for column, values in empty.items() if column != without})


def test_a_history_is_encoded_by_its_field() -> None:
    data = planted(0, replace(TASK, rows=(400, 50, 50)))

    def with_past(part: Part) -> Part:
        past = np.stack([part.ids[:, 0], np.where(part.labels, part.ids[:, 0], -1)], 1).astype(np.int32)
        return Part(part.ids, part.labels, past)

    data = replace(data, train=with_past(data.train), validation=with_past(data.validation), test=with_past(data.test))
    genome = OptFSGenome(model="din", operator="own", search_epochs=3, price=1.0, lr=0.02).tidy()
    model, expected, _ = _model(data, genome)
    texts: dict[str, list[Any]] = dict(_texts(data, data.test.ids))
    words = _texts(data, data.test.ids)[data.fields[0]]
    texts["history"] = [[w, w] if label else [w] for w, label in zip(words, data.test.labels, strict=True)]
    np.testing.assert_allclose(model.predict(texts).numpy(), 1 / (1 + np.exp(-expected)), rtol=1e-5)


def test_an_exported_history_is_the_column_and_as_long_as_in_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {}
    for part, n in (("train", 400), ("validation", 80), ("test", 40)):
        pasts = [[f"i{k}" for k in rng.integers(6, size=size)] for size in rng.integers(0, 9, n)]
        rows[part] = [(int(rng.integers(2)), f"u{rng.integers(4)}", f"i{rng.integers(6)}", past) for past in pasts]
        lines = [f"{click},{user},{item},{';'.join(past)}" for click, user, item, past in rows[part]]
        (tmp_path / f"{part}.csv").write_text("\n".join(["click,user,item,hist", *lines]) + "\n")
    past = {"name": "hist", "kind": "sequence", "of": "item", "length": 3, "separator": ";"}
    sets = {"task.schema": {"label": "click", "columns": ["user", "item", past]}, "task.batch": 50, "task.std": 1.0}
    sets |= {f"task.{part}": str(tmp_path / f"{part}.csv") for part in ("validation", "test")}
    sets |= {"search.models": ["din"], "search.reference": "din", "task.hidden": [4], "task.epochs": 2}
    settings = effective(None, str(tmp_path / "train.csv"), None, "smoke", sets)
    genome = OptFSGenome(model="din", operator="own", gates="none", lr=0.05).tidy()
    state, measured = trained(to_json(genome), settings, 0)
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(model_source(genome, parse(settings).task), "exported", "exec"), namespace)
    model = namespace["Model"].of(state)
    clicks, users, items, pasts = zip(*rows["validation"][1::2], strict=True)
    found = model.predict({"user": users, "item": items, "hist": pasts}).numpy()
    assert auc(np.array(clicks), found) == pytest.approx(measured["auc"], abs=1e-9)
    assert model.rows({"user": users, "item": items, "hist": pasts})[1].shape[1] == 3
    cells = [np.array(past, dtype=object) if past else math.nan for past in pasts]
    as_arrays = model.predict({"user": users, "item": items, "hist": cells})
    np.testing.assert_array_equal(as_arrays.numpy(), found)
    as_texts = model.predict({"user": users, "item": items, "hist": [";".join(past) for past in pasts]})
    np.testing.assert_array_equal(as_texts.numpy(), found)


def test_cells_of_parquet_are_read_as_in_training(tmp_path: Path) -> None:
    """Truth values, whole floats, bytes, lists with and without nulls, as they come from the file."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rng, tables = np.random.default_rng(0), {}
    for part, n in (("train", 400), ("validation", 60), ("test", 60)):
        pasts = [[f"i{k}".encode() for k in rng.integers(7, size=size)] for size in rng.integers(0, 8, n)]
        tables[part] = {
            "click": rng.integers(2, size=n).tolist(),
            "flag": rng.integers(2, size=n).astype(bool).tolist(),
            "user": [math.nan if k % 5 == 0 else float(user) for k, user in enumerate(rng.integers(6, size=n))],
            "item": [None if k % 7 == 0 else f"i{item}".encode() for k, item in enumerate(rng.integers(6, size=n))],
            "age": [None if k % 4 == 0 else float(age) for k, age in enumerate(rng.normal(size=n))],
            "hist": [None if k % 6 == 0 else [*past, *[None] * (k % 2)] for k, past in enumerate(pasts)],
        }
        parquet.write_table(pyarrow.table(tables[part]), tmp_path / f"{part}.parquet")
    past = {"name": "hist", "kind": "sequence", "of": "item", "length": 3}
    columns = ["flag", "user", "item", {"name": "age", "kind": "numeric", "bins": 4}, past]
    schema = Schema.parse({"label": "click", "columns": columns})
    data = read_tables({part: tmp_path / f"{part}.parquet" for part in tables}, schema, cache=tmp_path / "cache")
    model, expected, _ = _model(data, OptFSGenome(model="din", operator="own", gates="none", lr=0.05).tidy(), schema)
    found = model.predict(tables["test"]).numpy()
    assert np.ptp(found) > 0.01
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-expected)), rtol=1e-5)


def test_features_need_a_run_and_a_known_ending() -> None:
    genome = to_json(OptFSGenome())
    with pytest.raises(BadInputError, match="name of a run"):
        features(genome, None, 0, ".json")
    with pytest.raises(BadInputError, match=r"'\.xlsx'"):
        features(genome, {}, 0, ".xlsx")


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_features_say_which_values_meet_others(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = planted(0, TASK).with_holdout()
    monkeypatch.setattr(OptFSSpace, "load_data", lambda _: to_arrays(data))
    sets = {"task.batch": 200, "task.gate_lr": 0.05, "task.reviews": 0, "search.models": ["fm"]}
    settings = effective(None, "planted", None, "smoke", sets | {"search.search_epochs": [4], "task.warm_epochs": 1})
    genome = OptFSGenome(gates="product", search_epochs=4, pressure="ratio", ratio=0.3, lr=0.02).tidy()
    text, what = features(to_json(genome), settings, 0, suffix)
    n = sum(data.sizes)
    assert what == f"{n} of {n} values ({round(0.3 * n)} in pairs), 4 of 4 fields"
    if suffix == ".csv":
        rows = [line.split(",") for line in text.splitlines()]
        assert rows[0] == ["field", "value", "count", "paired"]
        assert sum(int(row[3]) for row in rows[1:]) == round(0.3 * n)
        return
    found = json.loads(text)
    paired = {f["name"]: sum(v["paired"] for v in f["values"]) for f in found["fields"]}
    assert sum(paired.values()) == found["paired"] == round(0.3 * n)
    assert all(paired[a] and paired[b] for a, b in found["pairs"])
    state, measured = trained(to_json(genome), settings, 0)
    assert measured["ratio"] == 1
    assert measured["kept_product"] == float(state["paired"].sum()) / n == 0.3

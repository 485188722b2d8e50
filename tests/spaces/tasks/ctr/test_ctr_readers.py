"""Readers of tables: what one becomes, what is refused, and that memory is treated well."""

import gzip
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click_tables import OTHER, SCHEMA, TRAIN, local, write

from layersearch.errors import DataError, RecipeError, UnknownNameError
from layersearch.spaces.tasks.ctr.prepare import read_tables
from layersearch.spaces.tasks.ctr.schema import Schema
from layersearch.spaces.tasks.ctr.sources import is_file, load_source
from layersearch.spaces.tasks.ctr.vocabulary import MISSING, Bins, VocabularyMaker


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "csv.gz", "TSV.GZ"])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_table_becomes_ids_of_the_training_vocabulary(tmp_path: Path, ending: str, chunk: int) -> None:
    data = read_tables(write(tmp_path, ending), SCHEMA, cache=tmp_path / "cache", chunk=chunk)
    assert data.fields == ("item", "city", "age")
    assert data.vocabulary[0] == ("a", "b", "c")
    assert data.vocabulary[1] == ("x", MISSING, "y")
    assert data.sizes == (4, 4, 4)
    assert data.vocabulary[2] == (MISSING, "[-inf, 2)", "[2, inf)")
    assert local(data, "train") == [[1, 1, 2], [2, 1, 3], [1, 2, 3], [3, 3, 1]]
    assert local(data, "validation") == [[0, 3, 3], [2, 2, 1]]
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.train.history is not None
    assert data.train.history.tolist() == [[-1, -1], [1, -1], [2, 1], [2, -1]]
    assert data.test.history is not None
    assert data.test.history.tolist() == [[0, 3], [-1, -1]]
    assert data.counts.tolist() == [0, 2, 1, 1, 0, 2, 1, 1, 0, 1, 1, 2]


def test_quotation_marks_are_characters_between_tabs_and_quote_between_commas(tmp_path: Path) -> None:
    schema = Schema.parse({"label": "click", "columns": ["a", "b"]})
    (tmp_path / "q.tsv").write_text("click\ta\tb\n" + '1\t"great phone\tx\n0\ttv 32"\tx\n1\t"great" phone\tx\n' * 20)
    data = read_tables(tmp_path / "q.tsv", schema, cache=tmp_path / "c")
    assert sum(len(data.part(part)) for part in ("train", "validation", "test")) == 60
    assert set(data.vocabulary[0]) == {'"great phone', 'tv 32"', '"great" phone'}
    (tmp_path / "q.csv").write_text("click,a,b\n" + '1,"great, ""phone""",x\n0,"two\nlines",x\n' * 20)
    data = read_tables(tmp_path / "q.csv", schema, cache=tmp_path / "c")
    assert set(data.vocabulary[0]) == {'great, "phone"', "two\nlines"}


def test_parquet_cells_are_read_by_their_type(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    n, nan = 20, float("nan")
    columns = {
        "click": [True, False] * n,
        "user": [b"u1", "ü".encode()] * n,
        "item": pa.array([3.0, nan] * n),
        "half": [0.5, None] * n,
        "age": pa.array([nan, 1.5] * n),
        "paid": [True, None] * n,
        "past": pa.array([[7.0, 3.0, 3.0], None] * n),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    numeric = [{"name": name, "kind": "numeric"} for name in ("age", "paid")]
    past = {"name": "past", "kind": "sequence", "of": "item", "length": 2}
    schema = Schema.parse(
        {"label": "click", "columns": ["user", "item", "half", *numeric, past], "missing": ["", "NA"]}
    )
    data = read_tables(tmp_path / "t.parquet", schema, cache=tmp_path / "c", chunk=7)
    assert [set(values) for values in data.vocabulary[:3]] == [{"u1", "ü"}, {"3", MISSING}, {"0.5", MISSING}]
    three = data.offsets[1] + 1 + data.vocabulary[1].index("3")
    clicked = data.train.labels == 1
    assert 0 < clicked.mean() < 1
    assert data.train.history is not None
    assert (data.train.history[clicked] == three).all()
    assert (data.train.history[~clicked] == -1).all()
    assert (data.train.ids[clicked, 1] == three).all()
    of_numbers = data.train.ids[:, 3:] - np.array(data.offsets[3:])
    assert (of_numbers[clicked] == [1, 2]).all(), "a missing age, paid"
    assert (of_numbers[~clicked] == [2, 1]).all()


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([["a"]] * 20, "column 'a' of t.parquet must have single values, it has lists; make it the sequence"),
        ([{"x": 1}] * 20, "column 'a' in row 1 of t.parquet must be a single value, got "),
        ([b"a", b"\xff"] * 10, "column 'a' in row 2 of t.parquet must be UTF-8, got "),
    ],
)
def test_parquet_cells_that_are_no_values_are_refused(tmp_path: Path, cells: list[object], sentence: str) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"click": [0, 1] * 10, "a": cells, "b": ["x"] * 20}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=sentence) as caught:
        read_tables(tmp_path / "t.parquet", Schema.parse({"label": "click", "columns": ["a", "b"]}), cache=tmp_path)
    assert "\n" not in str(caught.value)


def test_empty_lines_are_passed_over(tmp_path: Path) -> None:
    lines = TRAIN.splitlines()
    train = "\n" + "\r\n\n".join(lines) + "\n\n"
    data = read_tables(write(tmp_path, train=train), SCHEMA, cache=tmp_path / "c", chunk=2)
    assert data.train.labels.tolist() == [1, 0, 1, 0]


def test_broken_gzip_files_are_refused(tmp_path: Path) -> None:
    packed = gzip.compress(TRAIN.encode() * 100)
    for content in (packed[:-20], packed[:15] + b"abcdefgh" + packed[23:], TRAIN.encode()):
        (tmp_path / "t.csv.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"t.csv.gz must be a whole gzip file, and is not") as caught:
            read_tables(tmp_path / "t.csv.gz", SCHEMA, cache=tmp_path / "c")
        assert "\n" not in str(caught.value)


def test_packed_tables_are_files_by_their_ending(tmp_path: Path) -> None:
    assert is_file("clicks.csv.gz")
    with pytest.raises(UnknownNameError):
        is_file("clicks.gz")
    with pytest.raises(UnknownNameError):
        is_file("clicks.parquet.gz")
    files = write(tmp_path, "csv.gz")
    schema = {"label": "click", "columns": ["item", "city"]}
    named = {part: str(files[part]) for part in ("validation", "test")}
    assert load_source(str(files["train"]), schema=schema, **named).name == "train"


def test_labels_may_be_true_and_false(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("click,a,b\n" + "True,u,x\nFALSE,v,y\n" * 20)
    data = read_tables(path, Schema.parse({"label": "click", "columns": ["a", "b"]}), cache=tmp_path / "c")
    of_u = data.train.ids[:, 0] == 1 + data.vocabulary[0].index("u")
    assert np.array_equal(data.train.labels == 1, of_u)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_missing_texts_are_missing_in_sequences(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        path.write_text("click,item,city,past\n" + "1,a,x,NA\n1,NA,x,a|NA||zzz\n0,a,x,\n" * 20)
    else:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        past = [[], ["a", "NA", None, "zzz"], None] * 20
        columns = {"click": [1, 1, 0] * 20, "item": ["a", "NA", "a"] * 20, "city": ["x"] * 60, "past": past}
        parquet.write_table(pa.table(columns), path)
    past_of_item = {"name": "past", "kind": "sequence", "of": "item", "length": 4}
    schema = Schema.parse({"label": "click", "columns": ["item", "city", past_of_item], "missing": ["", "NA"]})
    data = read_tables(path, schema, cache=tmp_path / "c")
    assert data.vocabulary[0] == ("a", MISSING)
    assert data.train.history is not None
    of_missing_item = data.train.ids[:, 0] == 2
    assert (data.train.history[of_missing_item] == [1, 2, 2, 0]).all()
    assert (data.train.history[~of_missing_item] == -1).all()


def test_the_vocabulary_of_other_parts_is_not_looked_at(tmp_path: Path) -> None:
    one = read_tables(write(tmp_path), SCHEMA, cache=tmp_path / "a")
    two = read_tables(write(tmp_path, other=OTHER.replace("zzz", "qqq") * 1), SCHEMA, cache=tmp_path / "b")
    assert one.vocabulary == two.vocabulary
    assert np.array_equal(one.train.ids, two.train.ids)


def test_one_table_is_split_by_its_seed(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("click,a,b\n" + "".join(f"{i % 2},{i % 7},{i % 5}\n" for i in range(1000)))
    schema = Schema.parse({"label": "click", "columns": ["a", "b"]})
    one, again, other = (read_tables(path, schema, cache=tmp_path / "c", seed=s) for s in (0, 0, 1))
    assert len(one.train) + len(one.validation) + len(one.test) == 1000
    assert 760 < len(one.train) < 840
    assert np.array_equal(one.train.ids, again.train.ids)
    assert not np.array_equal(one.train.labels[:50], other.train.labels[:50])
    path.write_text("click,a,b\n1,1,1\n")
    with pytest.raises(DataError, match="part must have rows, got none"):
        read_tables(path, schema, cache=tmp_path / "c")
    with pytest.raises(DataError, match="sum to 1"):
        read_tables(path, schema, fractions=(0.9, 0.2, 0.1))


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (TRAIN.replace("city", "town", 1), "one column 'city', it has none"),
        (TRAIN.replace("unused", "city", 1), "one column 'city', it has several"),
        (TRAIN.replace("0,b,x,2", "2,b,x,2"), r"column 'click' in row 2 of train.csv must be 0 or 1 .*got '2';"),
        (TRAIN.replace("0,b,x,2", "yes,b,x,2"), "column 'click' in row 2 of train.csv must be a number, got 'yes'"),
        (TRAIN.replace("0,b,x,2", "nan,b,x,2"), "column 'click' in row 2 of train.csv must be 0 or 1"),
        (TRAIN.replace("0,b,x,2", "0,b,x"), "must have 6 columns, row 2 has 5"),
        (TRAIN.replace("0,b,x,2", "0,b,x,old"), "column 'age' in row 2 of train.csv must be a number, got 'old'"),
        (TRAIN.replace("0,b,x,2", "0,b,x,inf"), "column 'age' in row 2 of train.csv must be finite"),
        (TRAIN.replace(",x,", ",,").replace(",y,", ",,"), "column 'city' must have a value in some training row"),
        (TRAIN.replace(",1,,", ",,,").replace(",2,a", ",,a").replace(",3,a", ",,a"), "column 'age' must have a value"),
        (TRAIN.splitlines()[0] + "\n", "train part must have rows, got none"),
        ("", "header and rows, got an empty file"),
        (TRAIN + '1,"a', "must be well formed, line"),
    ],
)
def test_bad_tables_are_refused_with_their_place(tmp_path: Path, train: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        read_tables(write(tmp_path, train=train), SCHEMA, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_files_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path)
    with pytest.raises(DataError, match="name all three"):
        read_tables({"train": files["train"]}, SCHEMA)
    with pytest.raises(DataError, match="is missing"):
        read_tables({**files, "test": tmp_path / "no.csv"}, SCHEMA)
    (tmp_path / "t.xls").write_text("x")
    with pytest.raises(DataError, match="must end in"):
        read_tables(tmp_path / "t.xls", SCHEMA, cache=tmp_path / "c")
    (tmp_path / "latin.csv").write_bytes(TRAIN.encode().replace(b"x", b"\xe9"))
    with pytest.raises(DataError, match="must be UTF-8"):
        read_tables(tmp_path / "latin.csv", SCHEMA, cache=tmp_path / "c")
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="needs pyarrow, which is missing; pip install") as caught:
        read_tables(tmp_path / "t.parquet", SCHEMA, cache=tmp_path / "c")
    assert "\n" not in str(caught.value)


def test_labels_may_be_grades_and_minus_one(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("stars,a,b\n" + "5,1,1\n3,2,2\n4,1,2\n" * 40)
    schema = Schema.parse({"label": "stars", "columns": ["a", "b"], "positive_from": 4})
    data = read_tables(path, schema, cache=tmp_path / "c")
    assert data.train.labels.mean() == pytest.approx(2 / 3, abs=0.15)
    path.write_text("stars,a,b\n" + "-1,1,1\n1,2,2\n" * 40)
    data = read_tables(path, Schema.parse({"label": "stars", "columns": ["a", "b"]}), cache=tmp_path / "c")
    assert set(data.train.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([], "must be a mapping"),
        ({"label": "y"}, "must have a label"),
        ({"label": "y", "columns": ["a"]}, "at least 2 fields"),
        ({"label": "y", "columns": ["a", "a"]}, "name each once"),
        ({"label": "y", "columns": ["a", "y"]}, "name each once"),
        ({"label": "y", "columns": ["a", {"name": "b", "kind": "number"}]}, "did you mean 'numeric'"),
        ({"label": "y", "columns": ["a", {"name": "b", "bin": 3}]}, "did you mean 'bins'"),
        ({"label": "y", "columns": ["a", {"name": "b", "bins": 1}]}, r"bins of column 'b' must be in \[2"),
        ({"label": "y", "columns": ["a", "c", {"name": "b", "kind": "sequence"}]}, "must name the column"),
        ({"label": "y", "columns": ["a", "c", {"name": "b", "kind": "sequence", "of": "q"}]}, "known: a, c"),
        ({"label": "y", "columns": ["a", "b"], "positive_from": float("nan")}, "must be a finite number, got nan"),
        ({"label": "y", "colums": []}, "did you mean 'columns'"),
    ],
    ids=str,
)
def test_bad_schemas_get_one_sentence(values: object, sentence: str) -> None:
    with pytest.raises((RecipeError, UnknownNameError), match=sentence) as caught:
        Schema.parse(values)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_values_are_ordered_by_count_then_text_and_rare_ones_are_unknown() -> None:
    maker = VocabularyMaker()
    maker.add(["b", "a", "c", "c"])
    maker.add(["b", "a", "d"])
    assert maker.make().values == ("a", "b", "c", "d")
    words = maker.make(min_count=2)
    assert words.values == ("a", "b", "c")
    assert words.encode(["d", "c", "a", "longer than all"]).tolist() == [0, 3, 1, 0]
    assert VocabularyMaker().make().encode(["a"]).tolist() == [0]


def test_a_long_cell_costs_its_own_length_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"{i % 2},{'b' if i % 7 else 'a' * 20_000},x,{'a|' * 10_000 if i == 9 else ''}a" for i in range(1000)]
    path.write_text("click,item,city,past\n" + "\n".join(rows) + "\n")
    past = {"name": "past", "kind": "sequence", "of": "item", "length": 2}
    tracemalloc.start()
    data = read_tables(path, Schema.parse({"label": "click", "columns": ["item", "city", past]}), cache=tmp_path / "c")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000, "1000 rows of 20,000 characters each would be 80 MB"
    assert data.vocabulary[0] == ("b", "a" * 20_000)


def test_characters_of_value_0_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("click,a,b\n" + "0,u\0,x\n1,u,y\n" * 20)
    data = read_tables(path, Schema.parse({"label": "click", "columns": ["a", "b"]}), cache=tmp_path / "c")
    assert set(data.vocabulary[0]) == {"u", "u\0"}


def test_bins_hold_about_equal_numbers_and_a_constant_has_one() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    bins = Bins.fit(values, 8)
    counts = np.bincount(bins.encode(values), minlength=bins.size)
    assert counts[:2].tolist() == [0, 0]
    assert bins.size == len(bins.values) + 1 == 10
    np.testing.assert_allclose(counts[2:], 1250, atol=2)
    assert bins.encode(np.array([-np.inf, np.inf, np.nan])).tolist() == [2, 9, 1]
    assert Bins.fit(np.ones(5), 4).edges == ()

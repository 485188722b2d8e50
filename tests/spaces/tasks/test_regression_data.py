"""Targets by name: what they are, where their points come from, and what is said of files that are broken."""

import math
from pathlib import Path

import numpy as np
import pytest

from layersearch.errors import DataError, RecipeError, UnknownNameError
from layersearch.spaces.tasks.functions import EQUATIONS, FUNCTIONS, Function, Sampling, sampled
from layersearch.spaces.tasks.functions.expression import evaluate
from layersearch.spaces.tasks.regression import (
    REGRESSION_SETS,
    RegressionData,
    RegressionTask,
    from_arrays,
    load_regression,
    preset,
    split,
    to_arrays,
)
from layersearch.spaces.tasks.tabular import TABLES

FEW = Sampling(points=100, test_points=50)


def test_the_groups_hold_what_they_promise() -> None:
    assert {f"f{i}" for i in range(1, 6)} <= set(FUNCTIONS)
    assert {f"allkan-{i:02d}" for i in range(1, 19)} <= set(FUNCTIONS)
    assert [FUNCTIONS[f"r{i}"].kind for i in range(1, 8)] == [
        "smooth", "oscillating", "singular", "discontinuous", "noisy", "high-dimensional", "compositional",
    ]  # fmt: skip
    assert len(EQUATIONS) == 120
    assert len(REGRESSION_SETS) == len(list(REGRESSION_SETS)) == 30 + 120 + len(TABLES)
    assert all(name in REGRESSION_SETS for name in ("fn:f3", "feynman:I.6.2", "feynman:test_1", "uci:concrete"))
    assert all(REGRESSION_SETS[name].about and REGRESSION_SETS[name].row.source for name in REGRESSION_SETS)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("fn:f9", "fn:f"), ("concrete", "uci:concrete"), ("feynman:I.6.3", "feynman:I.6.2"), ("f3", "fn:f3"),
        ("I.6.2", "feynman:I.6.2"), ("feynmann:I.6.2", "feynman:I.6.2"), ("uci:concret", "uci:concrete"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_told_its_neighbours_and_the_groups(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{near}") as caught:
        REGRESSION_SETS[name]
    assert "fn:r1 … r7" in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(UnknownNameError):
        preset("smoke", name)


@pytest.mark.parametrize("name", ["fn:nope", "feynman:nope", "uci:nope", "fn:x", "feynman:x", "nope"])
def test_what_is_near_to_nothing_gets_no_suggestion(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        REGRESSION_SETS[name]
    assert "did you mean" not in str(caught.value)
    assert "fn:f1 … f5" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [
        ("f1", (0.5, -0.5), -0.25),
        ("f2", (0.5, 1.0), math.exp(2)),
        ("f3", (0.0, 0.0), 1.0),  # I1(0) + exp(I1e(0)) + sin 0
        ("f5", (0.75, 0.5), -0.5 + math.erf(0.75) * 0.375),
        ("r4", (0.0, 0.0), -1.0),
        ("r6", (0.5, 1.0, 0.5, 1.0, 1.0, 0.3, 0.1, 0.2, 0.9, 0.8), 25.0),
        ("r7", (0.5, 0.5, 0.5, 0.5), math.e),
        ("allkan-07", (2.0, 1.0, 2.0, 3.0), 14.0),
        ("allkan-13", (0.5,), 0.5),
        ("allkan-15", (0.75,), 2 / 3),  # .75 = 0.2020… in base 3, so 0.1010… in base 2
    ],
)
def test_functions_have_the_values_of_their_formulas(name: str, point: tuple[float, ...], value: float) -> None:
    assert FUNCTIONS[name](np.array([point]))[0] == pytest.approx(value, abs=1e-6)


def test_an_equation_is_its_formula() -> None:
    equation = EQUATIONS["I.6.2"]
    assert equation.dimension == 2
    sigma, theta = 1.5, 2.0
    expected = math.exp(-((theta / sigma) ** 2) / 2) / (math.sqrt(2 * math.pi) * sigma)
    assert equation(np.array([[sigma, theta]]))[0] == pytest.approx(expected, rel=1e-12)


def test_every_function_and_equation_is_finite_and_varies() -> None:
    for rows in (FUNCTIONS, EQUATIONS):
        for name, row in rows.items():
            (x, y), (_, test_y) = sampled(name, row, FEW)
            assert x.shape == (100, row.dimension)
            assert np.isfinite(y).all(), name
            assert np.isfinite(test_y).all(), name
            assert y.std() > 0, name
            low, high = np.array(row.domain).T
            assert ((x >= low) & (x <= high)).all(), name


@pytest.mark.parametrize(
    "formula", ["__import__('os')", "x.real", "x if x else y", "x + z", "f(x)", "x[0]", "(", "x" * 2000, "lambda: x"]
)
def test_a_formula_is_nothing_but_arithmetic(formula: str) -> None:
    with pytest.raises(DataError) as caught:
        evaluate(formula, {"x": np.ones(3), "y": np.ones(3)})
    assert "\n" not in str(caught.value)


def test_points_follow_their_seed_and_test_points_are_others() -> None:
    (x, y), (test_x, _) = sampled("f", FUNCTIONS["r1"], FEW)
    again = sampled("f", FUNCTIONS["r1"], FEW)
    np.testing.assert_array_equal(x, again[0][0])
    other = sampled("f", FUNCTIONS["r1"], Sampling(100, 50, seed=1))
    assert not np.array_equal(x, other[0][0])
    assert not set(map(tuple, x)) & set(map(tuple, test_x))
    np.testing.assert_array_equal(y, FUNCTIONS["r1"](x))


def test_noise_is_on_what_is_observed_and_not_on_the_test_part() -> None:
    (x, y), (test_x, test_y) = sampled("r5", FUNCTIONS["r5"], Sampling(5000, 50))
    np.testing.assert_array_equal(test_y, FUNCTIONS["r5"](test_x))
    noise = y - FUNCTIONS["r5"](x)
    assert noise.std() == pytest.approx(0.2, rel=0.1)  # 5 % is five standard errors


def test_the_published_test_grid_is_used() -> None:
    data = load_regression("fn:f3", None, FEW)
    assert data.test_x.shape == (40_000, 2)
    assert set(data.test_x.ravel()) == set(np.linspace(-1, 1, 200))


def test_the_four_parts_are_disjoint_and_complete() -> None:
    parts = split(1000, 77, validation=0.2, holdout=0.1, seed=3)
    assert [len(rows) for rows in (parts.train, parts.validation, parts.holdout, parts.test)] == [700, 200, 100, 77]
    assert sorted([*parts.train, *parts.validation, *parts.holdout]) == list(range(1000))
    assert sorted(parts.test) == list(range(77))
    again, other = (
        split(1000, 77, validation=0.2, holdout=0.1, seed=3),
        split(1000, 77, validation=0.2, holdout=0.1, seed=4),
    )
    np.testing.assert_array_equal(parts.train, again.train)
    assert not np.array_equal(parts.train, other.train)
    with pytest.raises(DataError, match="at least 4 rows"):
        split(3, 1, validation=0.4, holdout=0.4, seed=0)


def _npz(folder: Path, **changes: object) -> Path:
    row = TABLES["yacht"]
    rng = np.random.default_rng(0)
    mask = np.zeros((row.splits, row.rows), bool)
    mask[:, :31] = True
    arrays = {"X": rng.normal(size=(row.rows, row.dimension)), "y": rng.normal(size=row.rows), "test_mask": mask}
    (folder / "uci").mkdir()
    np.savez_compressed(folder / "uci" / "yacht.npz", **{**arrays, **changes})  # type: ignore[arg-type]
    return folder / "uci" / "yacht.npz"


def test_a_table_is_split_as_published_and_scaled_by_its_train_part_alone(tmp_path: Path) -> None:
    _npz(tmp_path)
    data = load_regression("uci:yacht", tmp_path)
    assert (len(data.train_y), len(data.test_y)) == (277, 31)
    task = RegressionTask(to_arrays(data), preset("smoke", "uci:yacht"))
    x, _ = task.batch(0, 0)
    assert x.mean(0).abs().max() < 1e-5
    assert (x.std(0, correction=0) - 1).abs().max() < 1e-5
    assert len(x) == len(task.parts.train)
    moved = RegressionData(data.train_x, data.train_y, data.test_x + 100, data.test_y * 9, data.domain, data.name)
    other, _ = RegressionTask(to_arrays(moved), preset("smoke", "uci:yacht")).batch(0, 0)
    assert x.equal(other)


def test_a_missing_or_broken_table_is_one_sentence(tmp_path: Path) -> None:
    def complaint(folder: Path | None) -> str:
        with pytest.raises(DataError) as caught:
            load_regression("uci:yacht", folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no data folder" in complaint(None)
    assert "has none" in complaint(tmp_path)
    path = _npz(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "fetch the file again" in complaint(tmp_path)
    path.write_bytes(b"")
    assert "cannot be read" in complaint(tmp_path)
    path.write_bytes(b"PK" + bytes(100))
    assert "cannot be read" in complaint(tmp_path)
    path.unlink()
    assert "is missing" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"X": np.zeros((5, 6))}, "must have the shape"),
        ({"y": np.full(308, np.nan)}, "finite"),
        ({"test_mask": np.zeros((20, 308), bool)}, "must have train and test rows"),
        ({"test_mask": np.zeros((20, 308))}, "truth values"),
        ({"y": np.array([object()] * 308)}, "cannot be read"),
    ],
    ids=["shape", "nan", "no test rows", "no mask", "pickled"],
)
def test_a_table_with_other_contents_is_refused(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    _npz(tmp_path, **changes)
    with pytest.raises(DataError, match=sentence):
        load_regression("uci:yacht", tmp_path)


@pytest.mark.data
def test_the_published_tables_can_be_read(data_dir: Path) -> None:
    for name, row in TABLES.items():
        data = load_regression(f"uci:{name}", data_dir, split=row.splits - 1)
        assert len(data.train_y) + len(data.test_y) == row.rows


def test_targets_that_are_not_finite_are_refused() -> None:
    x, y = np.ones((4, 1)), np.array([1.0, np.nan, 2.0, 3.0])
    with pytest.raises(DataError, match="target of 'fn:f1' must be finite"):
        RegressionData(x, y, x, x[:, 0], np.zeros((0, 1)), "fn:f1")
    row = Function("1/x", ((0.0, 0.0),), lambda x: 1 / x, "singular", "test")
    with pytest.raises(DataError, match="finite on its domain"), np.errstate(divide="ignore"):
        sampled("inverse", row, FEW)


def test_a_constant_target_is_refused() -> None:
    x = np.linspace(0, 1, 20)[:, None]
    data = RegressionData(x, np.ones(20), x, np.ones(20), np.zeros((0, 1)), "fn:f1")
    with pytest.raises(DataError, match="must vary"):
        RegressionTask(to_arrays(data), preset("smoke", "fn:f1"))


def test_arrays_can_be_put_together_again() -> None:
    data = load_regression("feynman:I.6.2", None, FEW)
    again = from_arrays(to_arrays(data))
    np.testing.assert_array_equal(again.train_x, data.train_x)
    assert again.name == "feynman:I.6.2"
    with pytest.raises(DataError, match="must include"):
        from_arrays({"name": np.zeros(1, np.uint8)})


@pytest.mark.parametrize(
    ("data", "changes", "sentence"),
    [
        ("fn:f3", {"split": 1}, "no published splits"),
        ("uci:yacht", {"split": 20}, r"in \[0, 19\]"),
        ("fn:f3", {"quality_steps": 10**6}, "at most fitness_steps"),
        ("fn:f3", {"validation_fraction": 0.9}, "less than 1"),
        ("fn:f3", {"optimizer": "lbfgs", "batch": 3}, "with lbfgs"),
        ("fn:f3", {"weight_decay": 0.1}, "but with adamw"),
        ("fn:f3", {"batch": -1}, "batch"),
        ("fn:f3", {"learning_rate": float("nan")}, "learning_rate"),
        ("fn:f3", {"steps": 3}, "unknown setting"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(data: str, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence) as caught:
        preset("smoke", data).replace(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["smoke", "small", "paper"])
def test_presets_fit_functions_and_tables(name: str) -> None:
    for data in ("fn:f1", "feynman:I.6.2", "uci:concrete"):
        assert preset(name, data).data == data

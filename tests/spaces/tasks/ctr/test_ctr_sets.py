"""libsvm files, and the prepared sets."""

from pathlib import Path

import numpy as np
import pytest
from click_tables import local

from layersearch.errors import BadInputError, DataError, UnknownNameError
from layersearch.spaces.tasks.ctr.libsvm import read_libsvm, read_libsvm_parts
from layersearch.spaces.tasks.ctr.prepared import CTR_SETS, load_ctr


def test_libsvm_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 3:1 10:1\n-1 4:1 11:1\n0 3:1 11:1\n")
    (tmp_path / "b").write_text("0 3:1 12:1\n1 9:1 10:1\n")
    data = read_libsvm_parts({"train": tmp_path / "a", "validation": tmp_path / "b", "test": tmp_path / "b"})
    assert data.sizes == (3, 3)
    assert data.vocabulary == (("3", "4"), ("10", "11"))
    assert local(data, "train") == [[1, 1], [2, 2], [1, 2]]
    assert local(data, "test") == [[1, 0], [0, 1]]
    assert data.train.labels.tolist() == [1, 0, 0]
    for text, row in (
        ("1 3:1 4:1\n1 3:1\n", 2),
        ("1 3:1\n2 3:1\n", 2),
        ("1 3:2\n", 1),
        ("1 x:1\n", 1),
        ("1 3:1 1\n", 1),
        ("1 3:1\n0 3.5:1\n", 2),
    ):
        (tmp_path / "c").write_text(text)
        with pytest.raises(DataError, match=f"row {row} is") as caught:
            read_libsvm(tmp_path / "c")
        assert "\n" not in str(caught.value)
    (tmp_path / "c").write_text("\n")
    with pytest.raises(DataError, match="empty file"):
        read_libsvm(tmp_path / "c")


def test_libsvm_indices_are_whole_numbers_of_63_bits(tmp_path: Path) -> None:
    hashed = [2**63 - 1, *range(12345678901234567, 12345678901234572)]
    (tmp_path / "a").write_text("".join(f"1 {index}:1 7:1\n" for index in hashed))
    indices, _ = read_libsvm(tmp_path / "a")
    assert indices.tolist() == [[index, 7] for index in hashed]
    for index in (str(2**63), "9" * 5000):  # Python reads no number of more than 4300 digits
        (tmp_path / "a").write_text(f"1 3:1 7:1\n0 3:1 {index}:1\n")
        with pytest.raises(DataError, match=rf"must be below 2\*\*63, row 2 has {index[:19]}.*; hash them") as caught:
            read_libsvm(tmp_path / "a")
        assert "\n" not in str(caught.value)


def test_sets_need_their_files(tmp_path: Path) -> None:
    for name in CTR_SETS:
        if name != "planted":
            with pytest.raises(BadInputError, match=f"data set '{name}'"):
                load_ctr(name)
            with pytest.raises(BadInputError, match="is missing"):
                load_ctr(name, tmp_path)
    with pytest.raises(UnknownNameError, match="known: frappe"):
        load_ctr("avazu")


@pytest.mark.data
@pytest.mark.slow
def test_frappe_as_published(data_dir: Path) -> None:
    data = load_ctr("frappe", data_dir)
    assert [len(data.train), len(data.validation), len(data.test)] == [202_027, 57_722, 28_860]
    assert data.train.labels.sum() == 67_604
    indices, labels = read_libsvm(data_dir / "ctr/frappe/test.libsvm")
    assert np.array_equal(labels, data.test.labels)
    assert indices.shape == (28_860, 10)
    unknown = (data.test.ids == np.array(data.offsets)).any(1)
    assert 0 < unknown.mean() < 0.05


@pytest.mark.data
@pytest.mark.slow
def test_movielens_is_split_by_time_within_users(data_dir: Path) -> None:
    data = load_ctr("movielens", data_dir)
    assert len(data.train) + len(data.validation) + len(data.test) == 100_000
    every = np.concatenate([data.train.labels, data.validation.labels, data.test.labels])
    assert every.mean() == pytest.approx(0.554, abs=0.001)
    assert data.sizes[0] == 944
    assert len(data.fields) == 10


@pytest.mark.data
@pytest.mark.slow
def test_grocery_leaves_the_last_purchases_out(data_dir: Path) -> None:
    data = load_ctr("grocery", data_dir)
    for part in (data.train, data.validation, data.test):
        assert part.labels.mean() == 0.5
        assert part.history is not None
        assert part.groups is not None
        assert (part.history[:, 0] >= 0).all()
        n = len(part) // 2
        assert np.array_equal(part.history[:n], part.history[n:])
        assert np.array_equal(part.ids[:n, 0], part.ids[n:, 0])
    assert data.target == 1
    assert data.test.history is not None
    assert data.validation.history is not None
    low, high = data.offsets[1], data.offsets[1] + data.sizes[1]
    given = data.test.history[data.test.history >= 0]
    assert ((given >= low) & (given < high)).all()
    # What was validated is the latest that a tested row knows of its user.
    user = data.test.ids[0, 0]
    (row,) = np.flatnonzero((data.validation.ids[:, 0] == user) & (data.validation.labels == 1))
    latest = data.test.history[0][data.test.history[0] >= 0][-1]
    assert latest == data.validation.ids[row, 1]

"""The four parts are disjoint, complete, balanced, and a function of the seed alone."""

import numpy as np
import pytest

from layersearch.errors import DataError
from layersearch.spaces.tasks.images.splits import split

LABELS = np.random.default_rng(0).integers(0, 10, 3000).astype(np.int64)


def test_the_parts_are_disjoint_and_cover_the_training_set() -> None:
    parts = split(LABELS, 500, validation=0.2, holdout=0.1, seed=0)
    joined = np.concatenate([parts.train, parts.validation, parts.holdout])
    assert len(joined) == len(LABELS)
    assert sorted(joined) == list(range(len(LABELS)))
    assert sorted(parts.test) == list(range(500))


def test_each_part_has_each_class_in_proportion() -> None:
    parts = split(LABELS, 500, validation=0.2, holdout=0.1, seed=0)
    whole = np.bincount(LABELS)
    for rows, fraction in ((parts.train, 0.7), (parts.validation, 0.2), (parts.holdout, 0.1)):
        assert np.abs(np.bincount(LABELS[rows]) - fraction * whole).max() <= 1


def test_the_split_depends_on_its_seed_alone() -> None:
    one, again, other = (split(LABELS, 500, validation=0.1, holdout=0.1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train, again.train)
    np.testing.assert_array_equal(one.test, again.test)
    assert not np.array_equal(one.train, other.train)


def test_the_first_rows_of_a_part_are_a_sample_of_all_classes() -> None:
    parts = split(LABELS, 500, validation=0.2, holdout=0.2, seed=0)
    for rows in (parts.train, parts.validation, parts.holdout):
        assert len(np.unique(LABELS[rows[:100]])) == 10


def test_a_class_too_small_to_split_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has 2 images"):
        split(np.array([0] * 50 + [1] * 2), 5, validation=0.1, holdout=0.1, seed=0)

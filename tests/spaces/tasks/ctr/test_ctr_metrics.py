"""AUC with ties, log loss without overflow, AUC within groups."""

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from layersearch.spaces.tasks.ctr.metrics import auc, grouped_auc, log_loss


@pytest.mark.parametrize("levels", [2, 7, 10_000])
def test_auc_is_that_of_scikit_learn_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    labels = rng.integers(0, 2, 3000)
    scores = rng.integers(0, levels, 3000) / levels + 0.3 * labels * (levels > 2)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_at_its_ends() -> None:
    assert auc(np.array([0, 0, 1]), np.array([1.0, 2.0, 3.0])) == 1
    assert auc(np.array([1, 0, 0]), np.array([1.0, 2.0, 3.0])) == 0
    assert auc(np.array([1, 0, 0, 1]), np.zeros(4)) == 0.5
    assert auc(np.ones(3), np.arange(3.0)) is None
    assert auc(np.zeros(0), np.zeros(0)) is None
    with pytest.raises(ValueError, match="finite"):
        auc(np.array([0, 1]), np.array([0.0, np.nan]))


def test_log_loss_is_that_of_scikit_learn_and_never_overflows() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 500), 3 * rng.normal(size=500)
    assert log_loss(labels, logits) == pytest.approx(sklearn_log_loss(labels, 1 / (1 + np.exp(-logits))))
    assert log_loss(np.array([1, 0]), np.array([-1e4, 1e4])) == pytest.approx(1e4)


def test_grouped_auc_weighs_groups_by_rows_and_leaves_out_those_of_one_class() -> None:
    labels = np.array([1, 0, 1, 1, 0, 0, 1])
    scores = np.array([2.0, 1.0, 5.0, 1.0, 2.0, 3.0, 9.0])
    groups = np.array([7, 7, 3, 5, 5, 5, 3])
    assert grouped_auc(labels, scores, groups) == pytest.approx((2 * 1.0 + 3 * 0.0) / 5)
    assert grouped_auc(labels[:1], scores[:1], groups[:1]) is None

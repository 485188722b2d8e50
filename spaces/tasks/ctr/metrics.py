"""AUC, log loss and grouped AUC of logits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["auc", "grouped_auc", "log_loss"]


def auc(labels: NDArray[Any], scores: NDArray[Any]) -> float | None:
    """Probability that a click is scored above a non-click, ties counted half; None if there are no such two rows.

    One sort. Raises: ValueError for a score that is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    positive = np.asarray(labels) > 0
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    # Rows of one score share the mean of their ranks.
    first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    sizes = np.diff(np.append(first, len(ranked)))
    positives = np.add.reduceat(positive[order].astype(np.int64), first)
    mean_rank = first + (sizes + 1) / 2
    total = float((positives * mean_rank).sum())
    return (total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def log_loss(labels: NDArray[Any], logits: NDArray[Any]) -> float:
    """Mean of ``log(1 + e^z) - y z`` in nats, in float64 and without overflow."""
    z = np.asarray(logits, np.float64)
    return float((np.logaddexp(0, z) - np.asarray(labels, np.float64) * z).mean())


def grouped_auc(labels: NDArray[Any], scores: NDArray[Any], groups: NDArray[Any]) -> float | None:
    """Mean of the AUC of each group with a click and a non-click, weighted by its rows; None if there is none."""
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[order])) + 1
    total, weight = 0.0, 0
    for rows in np.split(order, cuts):
        value = auc(labels[rows], scores[rows])
        if value is not None:
            total += value * len(rows)
            weight += len(rows)
    return total / weight if weight else None

"""Which values are best kept: against the log loss of tables that share one row where a value is left out."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layersearch.spaces.tasks.ctr.best_values import best_values
from layersearch.spaces.tasks.ctr.review import Evidence, gained, solved


def evidence_of(effects: list[list[float]], weights: list[float], field: list[int]) -> Evidence:
    """Of values whose best rows are ``effects``, each seen as often as its weight says."""
    information = torch.tensor(weights)[:, None, None] * torch.eye(len(effects[0]))
    score = (information @ torch.tensor(effects).unsqueeze(-1))[..., 0]
    return Evidence(score, information, False, torch.tensor(field))


def lost(evidence: Evidence, kept: NDArray[np.bool_]) -> float:
    """Nats that are lost if the others have one row per field, the best one for them all."""
    total = 0.0
    for field in evidence.field.unique():
        out = torch.from_numpy(~kept) & (evidence.field == field)
        score, information = evidence.score[out], evidence.information[out]
        own = (score * solved(information, score)).sum()
        joint = (score.sum(0) * solved(information.sum(0), score.sum(0))).sum()
        total += 0.5 * float(own - joint)
    return total


def choice(n: int, kept: list[int]) -> NDArray[np.bool_]:
    found = np.zeros(n, bool)
    found[kept] = True
    return found


def test_rare_values_of_the_same_large_effect_are_left_out_together() -> None:
    """They are far from 0 and alike: without a row they are still told from the others."""
    effects = [[-2.0], [0.6], [-2.1], [-0.5], [-1.9], [0.9], [-2.0], [1.2]]
    counts = np.array([5, 9, 6, 9, 5, 9, 7, 9])
    kept = best_values(evidence_of(effects, [10.0] * 8, [0] * 8), counts, 4)
    assert np.flatnonzero(kept).tolist() == [1, 3, 5, 7]


def test_rare_values_are_kept_where_they_say_more() -> None:
    effects = [[0.0], [2.0], [0.1], [-2.0], [-0.1], [0.0]]
    counts = np.array([9, 1, 9, 1, 9, 9])
    kept = best_values(evidence_of(effects, [10.0] * 6, [0] * 6), counts, 2)
    assert np.flatnonzero(kept).tolist() == [1, 3]


def test_each_field_has_its_own_shared_effect() -> None:
    effects = [[-2.0], [-2.0], [-2.0], [1.0], [2.0], [2.0], [2.0], [-1.0]]
    kept = best_values(evidence_of(effects, [10.0] * 8, [0, 0, 0, 0, 1, 1, 1, 1]), np.full(8, 10), 2)
    assert np.flatnonzero(kept).tolist() == [3, 7]


@pytest.mark.parametrize("seed", range(8))
def test_it_costs_no_more_than_simple_choices_and_little_more_than_the_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    effects = (rng.normal(size=(10, 2)) + rng.choice([-1.5, 0.0], size=(10, 1))).tolist()
    counts = rng.integers(1, 100, 10)
    found = evidence_of(effects, rng.uniform(1, 20, 10).tolist(), np.sort(rng.integers(0, 2, 10)).tolist())
    kept = best_values(found, counts, 6)
    assert kept.sum() == 6
    frequent = choice(10, np.argsort(-counts, kind="stable")[:6].tolist())
    strong = choice(10, np.argsort(-gained(found.score, found.information).numpy(), kind="stable")[:6].tolist())
    every = [lost(found, choice(10, list(some))) for some in itertools.combinations(range(10), 6)]
    assert lost(found, kept) <= min(lost(found, frequent), lost(found, strong)) + 1e-3
    assert lost(found, kept) <= min(every) + 0.25 * (float(np.median(every)) - min(every))


def test_values_that_never_occur_go_first_and_the_number_is_met() -> None:
    effects = [[1.0], [2.0], [0.0], [3.0]]
    found, counts = evidence_of(effects, [5.0, 5.0, 0.0, 5.0], [0] * 4), np.array([5, 5, 0, 5])
    assert best_values(found, counts, 3).tolist() == [True, True, False, True]
    assert best_values(found, counts, 4).all()
    assert not best_values(found, counts, 0).any()

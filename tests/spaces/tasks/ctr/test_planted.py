"""The planted task is what it says: hard, and its answer is known."""

import numpy as np
import pytest

from layersearch.errors import BadInputError
from layersearch.spaces.tasks.ctr.data import CTRData
from layersearch.spaces.tasks.ctr.metrics import auc
from layersearch.spaces.tasks.ctr.planted import BAYES_AUC, PlantedSettings, planted


@pytest.fixture(scope="module", params=[0, 1])
def task(request: pytest.FixtureRequest) -> CTRData:
    return planted(request.param)


@pytest.mark.slow
def test_it_is_large_and_its_best_auc_is_known(task: CTRData) -> None:
    assert len(task.fields) >= 20
    assert sum(task.sizes) - len(task.sizes) >= 10_000
    assert task.truth is not None
    best = auc(task.test.labels, task.truth.test_logits)
    assert best == pytest.approx(BAYES_AUC, abs=0.02)
    seen = task.counts[task.truth.values]
    assert (seen >= 50).mean() > 0.9


@pytest.mark.slow
def test_frequency_does_not_tell(task: CTRData) -> None:
    """At the ratio of the useful values the most frequent ones hold few of them."""
    assert task.truth is not None
    useful, counts = task.truth.values, task.counts
    selected = np.zeros(len(counts), bool)
    selected[np.argsort(-counts, kind="stable")[: int(useful.sum())]] = True
    _, recall = task.truth.precision_recall(selected, counts)
    assert recall <= 0.7
    order = np.argsort(-counts, kind="stable")
    for f in np.flatnonzero(task.truth.fields):
        low = task.offsets[f]
        mine = order[(order > low) & (order < low + task.sizes[f])]
        halves = [useful[half].mean() for half in np.array_split(mine, 2)]
        assert halves[0] == pytest.approx(halves[1], abs=0.06)


@pytest.mark.slow
def test_counts_follow_zipf_and_mandelbrot(task: CTRData) -> None:
    assert task.truth is not None
    f = int(np.flatnonzero(~task.truth.fields)[0])
    counts = np.sort(task.counts[task.offsets[f] : task.offsets[f] + task.sizes[f]])[::-1]
    ranks = np.arange(1, 101)
    slope = np.polyfit(np.log(ranks + 1.0), np.log(counts[:100]), 1)[0]
    assert slope == pytest.approx(-1.2, abs=0.1)


def test_pairs_have_effects_and_their_values_have_none() -> None:
    """Only a pair acts: labels of a task with nothing else do not depend on any single value but on the two."""
    s = PlantedSettings(mains=0, couples=1, noise=1, values=12, couple_values=4, every=6, rows=(200_000, 10, 10))
    task = planted(3, s)
    assert task.truth is not None
    labels, ids = task.train.labels.astype(float), task.train.ids
    base = labels.mean()
    a, b = np.flatnonzero(task.truth.fields)
    assert task.truth.pairs.sum() == 1
    values = {
        f: [k for k in range(task.offsets[f], task.offsets[f] + task.sizes[f]) if task.truth.values[k]] for f in (a, b)
    }
    assert len(values[a]) == len(values[b]) == 2
    for f in (a, b):
        for k in values[f]:
            assert labels[ids[:, f] == k].mean() == pytest.approx(base, abs=0.015)
    cell = {(k, m): labels[(ids[:, a] == k) & (ids[:, b] == m)].mean() - base for k in values[a] for m in values[b]}
    assert all(abs(effect) > 0.2 for effect in cell.values())
    assert sum(effect > 0 for effect in cell.values()) == 2
    noise = 3 - a - b
    for k in np.unique(ids[:, noise]):
        rows = labels[ids[:, noise] == k]
        assert abs(rows.mean() - base) < 5 * (0.25 / len(rows)) ** 0.5


def test_it_follows_its_seed() -> None:
    small = PlantedSettings(rows=(500, 50, 50))
    one, again, other = planted(1, small), planted(1, small), planted(2, small)
    assert np.array_equal(one.train.ids, again.train.ids)
    assert np.array_equal(one.test.labels, again.test.labels)
    assert not np.array_equal(one.train.ids, other.train.ids)
    assert one.truth is not None
    assert other.truth is not None
    assert not np.array_equal(one.truth.fields, other.truth.fields)


def test_precision_and_recall_count_seen_values_only() -> None:
    task = planted(0, PlantedSettings(rows=(2000, 10, 10)))
    assert task.truth is not None
    counts = np.zeros(len(task.truth.values), np.int64)
    useful = np.flatnonzero(task.truth.values)
    useless = np.flatnonzero(~task.truth.values)
    counts[[*useful[:3], useless[0]]] = 50
    selected = np.zeros(len(counts), bool)
    selected[[useful[0], useless[0], useful[7]]] = True
    assert task.truth.precision_recall(selected, counts) == (0.5, pytest.approx(1 / 3))
    assert task.truth.pair_precision_recall(np.zeros_like(task.truth.pairs)) == (0, 0)


@pytest.mark.parametrize(
    "bad",
    [{"values": 100}, {"couple_values": 6}, {"noise": -1}, {"mains": 0, "couples": 0, "noise": 1}, {"rows": (0, 1, 1)}],
)
def test_bad_settings_get_one_sentence(bad: dict[str, object]) -> None:
    with pytest.raises(BadInputError):
        PlantedSettings(**bad)  # type: ignore[arg-type]

"""The review of values: its gains are those of a fit, and it rights what gates got wrong."""

import numpy as np
import pytest
import torch

from layersearch.errors import BadInputError
from layersearch.primitives.gates.continuation import Continuation
from layersearch.primitives.gates.gate_set import GateSet
from layersearch.spaces.tasks.ctr.data import CTRData, Part
from layersearch.spaces.tasks.ctr.learning import Learner
from layersearch.spaces.tasks.ctr.metrics import log_loss
from layersearch.spaces.tasks.ctr.models.base import MODELS, ModelSettings
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted
from layersearch.spaces.tasks.ctr.review import MOST_DIRECTIONS, evidence, worth
from layersearch.spaces.tasks.ctr.settings import LearnSettings

TASK = PlantedSettings(
    mains=2, couples=1, noise=2, values=24, couple_values=8, every=3, main_effect=0.6, exponent=0.3,
    rows=(6000, 800, 800),
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> CTRData:
    return planted(0, TASK)


def fresh(data: CTRData, name: str, **sizes: object) -> tuple[torch.nn.Module, GateSet]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name](data.sizes, ModelSettings(std=0.1, **sizes))  # type: ignore[arg-type]
    return model, GateSet(("value",), data.sizes, Continuation())


def test_the_gain_of_a_value_alone_is_what_a_fit_gains(data: CTRData) -> None:
    """Of a small effect in an empty model: by a weight found on a grid, the log loss falls by as much."""
    model, gates = fresh(data, "lr")
    found = evidence(model, gates, data)  # type: ignore[arg-type]
    alone, more = found.gains()
    assert found.directions == 0
    assert not more.any()
    labels = data.train.labels
    rate = np.log(labels.mean() / (1 - labels.mean()))
    for k in [*np.argsort(-alone)[:5].tolist(), 5, 60]:
        there = (data.train.ids == k).any(1)
        fits = [log_loss(labels, rate + w * there) for w in np.linspace(-2, 2, 401)]
        fitted = (log_loss(labels, np.full(len(labels), rate)) - min(fits)) * len(labels)
        assert alone[k] == pytest.approx(fitted, rel=0.15, abs=0.3)


def test_open_and_shut_values_get_the_same_question(data: CTRData) -> None:
    model, gates = fresh(data, "lr")
    with torch.no_grad():
        model.table.weight.copy_(
            torch.randn(model.table.weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1
        )
    before, _ = evidence(model, gates, data).gains()  # type: ignore[arg-type]
    with torch.no_grad():
        gates.gates["value"].logits[40] = -1
    after, _ = evidence(model, gates, data).gains()  # type: ignore[arg-type]
    assert after[40] == pytest.approx(before[40], rel=0.1, abs=0.2)


def test_a_wide_embedding_is_looked_at_in_few_directions(data: CTRData) -> None:
    model, gates = fresh(data, "fm", dim=12)
    found = evidence(model, gates, data)  # type: ignore[arg-type]
    alone, more = found.gains()
    assert found.directions == MOST_DIRECTIONS
    assert np.isfinite(alone).all()
    assert np.isfinite(more).all()
    assert model.training


def test_useless_values_rarely_gain_what_is_asked_for() -> None:
    """Labels that no value tells of: 1,000 values at a price of 5.9 nats have 2 · 6e-4 · 1,000 = 1.2 false alarms on
    average, and more than 7 with odds of 2e-4."""
    rng = np.random.default_rng(0)
    sizes = (501, 501)
    ids = np.stack([rng.integers(1, 501, 50_000), 501 + rng.integers(1, 501, 50_000)], 1).astype(np.int32)
    part = Part(ids, rng.integers(0, 2, 50_000).astype(np.uint8))
    data = CTRData("none", ("a", "b"), sizes, part, part, part)
    model, gates = fresh(data, "fm", dim=2)
    found = evidence(model, gates, data)  # type: ignore[arg-type]
    assert (worth(*found.gains(), found.directions, 5.9) > 1).sum() <= 7


def test_the_price_is_the_same_odds_in_more_directions() -> None:
    two = np.array([6.0, 0.0]), np.array([0.0, 6.0])
    assert worth(*two, 4, 6.0)[0] == 1
    assert worth(*two, 4, 6.0)[1] < 1
    assert worth(*two, 0, 6.0).tolist() == [1.0, 0.0]


@pytest.mark.slow
def test_a_reviewed_search_finds_what_was_planted(data: CTRData) -> None:
    settings = LearnSettings(
        sizes=ModelSettings(dim=2, std=0.3), search_epochs=6, warm_epochs=2, reviews=2, epochs=2, batch=200, decay=0.1
    )
    learner = Learner(data, settings, seed=1)
    learner.run()
    assert data.truth is not None
    precision, recall = data.truth.precision_recall(learner.gates.selection().values.numpy(), data.counts)
    assert precision > 0.8
    assert recall > 0.7
    exact = Learner(data, LearnSettings(**{**settings.__dict__, "price": 0.0, "ratio": 0.2}), seed=1)
    exact.run(max_steps=6 * exact.steps_per_epoch)
    assert exact.gates.gates["value"].selected().sum() == round(0.2 * sum(data.sizes))


def test_reviews_need_epochs_and_a_price() -> None:
    with pytest.raises(BadInputError, match="reviews must be in"):
        LearnSettings(reviews=4)
    with pytest.raises(BadInputError, match="a review needs a price"):
        LearnSettings(reviews=2, price=0.0)

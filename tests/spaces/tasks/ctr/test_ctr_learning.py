"""Learning a selection: phases, cut, rewind, controls, checkpoints; small and deterministic."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from histories import with_history

from layersearch.errors import BadInputError, DataError, StoreError
from layersearch.primitives.gates.rewind import Rewind
from layersearch.spaces.tasks.ctr.checkpoint import read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.ctr.data import CTRData, Part
from layersearch.spaces.tasks.ctr.learning import Learner, predict
from layersearch.spaces.tasks.ctr.models.base import MODELS, ModelSettings
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted
from layersearch.spaces.tasks.ctr.selection import by_frequency, by_random, selection_csv, selection_json
from layersearch.spaces.tasks.ctr.settings import LearnSettings

TASK = PlantedSettings(
    mains=2, couples=0, noise=3, values=24, every=3, main_effect=2.0, exponent=0.3, rows=(6000, 800, 800)
)
SMALL = ModelSettings(dim=2, hidden=(4,), std=0.1)
QUICK = LearnSettings(
    model="lr",
    search_epochs=4,
    warm_epochs=2,
    epochs=3,
    price=3,
    growth=0.5,
    batch=200,
    gate_lr=0.05,
    decay=0.0,
    last=None,
)


def settings(**changes: object) -> LearnSettings:
    return LearnSettings(**({k: getattr(QUICK, k) for k in QUICK.__dataclass_fields__} | {"sizes": SMALL} | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> CTRData:
    return planted(0, TASK)


@pytest.fixture(scope="module")
def tiny() -> CTRData:
    return planted(0, replace(TASK, rows=(2000, 300, 300)))


@pytest.fixture(scope="module")
def past(tiny: CTRData) -> CTRData:
    return with_history(tiny)


def state(learner: Learner) -> dict[str, torch.Tensor]:
    return {**Rewind(learner.model).tensors, **{f"g:{k}": v for k, v in Rewind(learner.gates).tensors.items()}}


def same(a: Learner, b: Learner) -> bool:
    return a.history == b.history and all(
        torch.equal(x, y) for x, y in zip(state(a).values(), state(b).values(), strict=True)
    )


@pytest.mark.slow
def test_a_search_finds_useful_values_and_keeps_the_quality(data: CTRData) -> None:
    full = Learner(data, settings(gates=()))
    full.run()
    learner = Learner(data, settings())
    learner.run()
    assert data.truth is not None
    selected = learner.gates.gates["value"].selected().numpy()
    precision, recall = data.truth.precision_recall(selected, data.counts)
    assert precision > 0.9
    assert recall > 0.9
    mine, others = learner.score("test"), full.score("test")
    assert mine.auc is not None
    assert others.auc is not None
    assert mine.auc > others.auc - 0.005
    assert learner.model.n_parameters() == full.model.n_parameters()
    pruned = learner.pruned()
    assert pruned.n_parameters() < 0.5 * full.model.n_parameters()
    np.testing.assert_array_equal(predict(pruned, data, "test"), learner.logits("test"))
    for kept in (by_frequency(data, 0.2), by_random(data, 0.2, 1)):
        control = Learner(data, settings(), keep={"value": kept})
        control.run()
        worse = control.score("test").auc
        assert worse is not None
        assert worse < mine.auc - 0.02
        assert np.array_equal(control.gates.gates["value"].selected().numpy(), kept)


def test_the_cut_rewinds_everything_and_starts_fresh_optimisers(data: CTRData) -> None:
    learner = Learner(data, settings(model="dcn", rewind_epoch=1))
    steps = learner.steps_per_epoch
    learner.run(max_steps=steps)
    early = Rewind(learner.model).tensors
    learner.run(max_steps=3 * steps - 1)
    late = Rewind(learner.model).tensors
    assert all(not torch.equal(early[name], late[name]) for name in early), "the search must have moved everything"
    learner.run(max_steps=1)
    assert learner.phase == "retrain"
    assert learner.step == 0
    assert all(torch.equal(early[name], tensor) for name, tensor in Rewind(learner.model).tensors.items())
    assert not learner.table_optimiser.state
    assert not learner.dense_optimiser.state
    gates = {name: tensor.clone() for name, tensor in state(learner).items() if name.startswith("g:")}
    learner.run(max_steps=steps)
    assert all(torch.equal(state(learner)[name], gate) for name, gate in gates.items()), "gates must stay cut"


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_a_ratio_is_reached_exactly(data: CTRData, ratio: float) -> None:
    learner = Learner(data, settings(ratio=ratio, price=0.5, epochs=1))
    learner.run()
    n = sum(data.sizes)
    assert int(learner.gates.gates["value"].selected().sum()) == round(ratio * n)
    small = learner.pruned()
    assert len(small.table.weight) == round(ratio * n) + 1


@pytest.mark.parametrize("model", list(MODELS))
def test_every_model_learns_with_every_gate_it_takes(model: str, past: CTRData) -> None:
    row = MODELS[model]
    kinds = ("field", "value", *(("pair", "product") if row.has_pairs else ()))
    learner = Learner(past, settings(model=model, gates=kinds, epochs=1, search_epochs=2, warm_epochs=1))
    assert learner.run()
    assert [entry["phase"] for entry in learner.history] == ["search", "search", "retrain"]
    with torch.no_grad():
        for shut, gates in enumerate(learner.gates.gates.values()):
            gates.logits[shut::4] = -1  # others of each kind
    np.testing.assert_allclose(predict(learner.pruned(), past, "test"), learner.logits("test"), atol=1e-5)
    assert learner.score("validation").log_loss < 0.8


@pytest.mark.parametrize("relaxation", ["hard_concrete", "gumbel"])
def test_random_relaxations_learn_and_follow_their_seed(tiny: CTRData, relaxation: str) -> None:
    quick = settings(relaxation=relaxation, epochs=1, search_epochs=2, warm_epochs=1)
    one, again, other = Learner(tiny, quick, 1), Learner(tiny, quick, 1), Learner(tiny, quick, 2)
    for learner in (one, again, other):
        learner.run()
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize(("model", "at"), [("lr", 45), *(("dcn", at) for at in (1, 15, 45, 61, 85))])
def test_a_checkpoint_continues_bit_for_bit(tiny: CTRData, model: str, at: int) -> None:
    quick = settings(
        model=model,
        batch=100,
        search_epochs=3,
        warm_epochs=1,
        epochs=2,
        gates=("value", "field"),
        decay=0.1,
        ratio=0.5,
        relaxation="gumbel",
        sizes=ModelSettings(dim=2, hidden=(4,), dropout=0.2, batch_norm=True),
    )
    before = torch.random.get_rng_state()
    whole, first, second = (Learner(tiny, quick, 3) for _ in range(3))
    whole.run()
    first.run(max_steps=at)
    read_checkpoint(write_checkpoint(first), second)
    second.run()
    assert same(whole, second)
    assert whole.cut_score == second.cut_score
    assert torch.equal(torch.random.get_rng_state(), before), "no global generator may move"


def test_checkpoints_of_others_and_broken_ones_are_refused(data: CTRData) -> None:
    learner = Learner(data, settings(), 0)
    saved = write_checkpoint(learner)
    for other in (Learner(data, settings(), 1), Learner(data, settings(lr=0.5), 0)):
        with pytest.raises(StoreError, match="its own data, settings and seed"):
            read_checkpoint(saved, other)
    for broken in (b"", saved[:-9], b"x" * 100):
        with pytest.raises(StoreError, match="must be whole"):
            read_checkpoint(broken, learner)


def test_a_selection_is_written_by_name(data: CTRData) -> None:
    learner = Learner(data, settings(gates=("value", "field")))
    with torch.no_grad():
        learner.gates.gates["value"].logits.fill_(-1)
        learner.gates.gates["value"].logits[[0, 2, 26, 51]] = 1
        learner.gates.gates["field"].logits[2] = -1
    selection = learner.gates.selection()
    found = json.loads(json.dumps(selection_json(selection, data)))
    assert [f["name"] for f in found["fields"]] == ["f00", "f01"]
    values = found["fields"][0]["values"]
    assert [v["value"] for v in values] == ["(unknown)", "v2"]
    assert values[1]["count"] == data.counts[2]
    assert found["kept"] == 3
    assert ["f00", "f01"] in found["pairs"]
    assert not any("f02" in pair for pair in found["pairs"])
    rows = list(csv.DictReader(io.StringIO(selection_csv(selection, data))))
    assert [(r["field"], r["value"]) for r in rows] == [("f00", "(unknown)"), ("f00", "v2"), ("f01", "v1")]
    assert int(rows[1]["count"]) == data.counts[2]


def test_controls_keep_as_many_as_they_should(data: CTRData) -> None:
    n = len(data.counts)
    for ratio in (0.1, 0.37, 1.0):
        frequent, drawn = by_frequency(data, ratio), by_random(data, ratio, 0)
        assert frequent.sum() == drawn.sum() == round(ratio * n)
        assert ratio == 1 or data.counts[frequent].min() >= data.counts[~frequent].max()
    assert not np.array_equal(by_random(data, 0.3, 0), by_random(data, 0.3, 1))
    with pytest.raises(BadInputError, match=r"in \(0, 1\]"):
        by_frequency(data, 0)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"rewind_epoch": 4}, "rewind_epoch must be in"),
        ({"warm_epochs": 4}, "warm_epochs must be in"),
        ({"ratio": 0.0}, r"ratio must be in \(0, 1\]"),
        ({"ratio": 1.2}, r"ratio must be in \(0, 1\]"),
        ({"gates": ("pair",)}, "has none; use fm"),
        ({"gates": ("valu",)}, "did you mean 'value'"),
        ({"model": "dfm"}, "did you mean 'fm'"),
        ({"relaxation": "soft"}, "unknown relaxation"),
        ({"price": -1.0}, "price must be"),
        ({"growth": 2.0}, "growth must be"),
        ({"batch": 1}, "batch must be at least 2"),
        ({"lr": float("nan")}, "lr must be"),
    ],
    ids=str,
)
def test_bad_settings_get_one_sentence(bad: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence) as caught:
        settings(**bad)
    assert "\n" not in str(caught.value)


def test_bad_data_get_one_sentence(data: CTRData) -> None:
    with pytest.raises(DataError, match="batch must be at most the 6000"):
        Learner(data, settings(batch=6001))
    empty = Part(data.test.ids[:0], data.test.labels[:0])
    with pytest.raises(DataError, match="test part of 'x' must have rows"):
        CTRData("x", data.fields, data.sizes, data.train, data.validation, empty)
    moved = Part(data.test.ids[:, ::-1], data.test.labels)
    with pytest.raises(DataError, match="must lie in their fields"):
        CTRData("x", data.fields, data.sizes, data.train, data.validation, moved)


def test_rates_slow_after_epochs_without_a_gain_and_stay_slow_in_a_checkpoint(tiny: CTRData) -> None:
    how = settings(gates=(), lr=0.3, epochs=12, patience=3, slowing=0.5)
    learner = Learner(tiny, how, seed=1)
    rates = [how.lr]
    while learner.phase != "done":
        learner.run(max_steps=learner.steps_per_epoch)
        rates.append(learner.table_optimiser.param_groups[0]["lr"])
    best, expected = 0.0, [how.lr]
    for entry in learner.history:
        rose = float(entry["auc"]) > best
        best = max(best, float(entry["auc"]))
        expected.append(expected[-1] * (1 if rose else 0.5))
    assert rates == pytest.approx(expected)
    assert rates[-1] < how.lr / 4
    assert learner.dense_optimiser.param_groups[0]["lr"] == rates[-1]
    slowed = [rate < how.lr for rate in rates]
    assert any(slowed[:-1]), "or no checkpoint below is of a slowed training"
    for epoch in range(1, len(learner.history)):
        first, second = Learner(tiny, how, seed=1), Learner(tiny, how, seed=1)
        first.run(max_steps=epoch * first.steps_per_epoch + 3)
        read_checkpoint(write_checkpoint(first), second)
        assert first.phase == second.phase == "retrain"
        assert second.table_optimiser.param_groups[0]["lr"] == rates[epoch]
        second.run()
        assert same(second, learner)


@pytest.mark.parametrize("model", ["fm", "dcn"])
def test_a_penalty_shrinks_the_whole_table_and_a_checkpoint_goes_on(tiny: CTRData, model: str) -> None:
    how = settings(model=model, penalty=0.05, reviews=1, ratio=0.4, price=0.0)
    learner, free = Learner(tiny, how), Learner(tiny, replace(how, penalty=0.0))
    learner.run()
    free.run()
    norm, other = (x.model.table.weight[:, 1:].norm().item() for x in (learner, free))
    assert norm < 0.3 * other
    first, second = Learner(tiny, how), Learner(tiny, how)
    first.run(max_steps=first.steps_per_epoch * 3 + 5)
    read_checkpoint(write_checkpoint(first), second)
    second.run()
    assert same(second, learner)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"decay": 0.1, "penalty": 0.1}, "only one of decay and penalty"),
        ({"slowing": 0.0}, r"slowing must be in \(0, 1\]"),
        ({"slowing": 1.5}, r"slowing must be in \(0, 1\]"),
        ({"penalty": -1.0}, "penalty must be in"),
    ],
)
def test_regularisers_and_slowing_are_checked(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(BadInputError, match=sentence):
        settings(**wrong)

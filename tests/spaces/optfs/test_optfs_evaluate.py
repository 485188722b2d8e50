"""Stages of the optfs funnel on a small planted task: what is measured, rejected, continued."""

import json
from dataclasses import replace

import numpy as np
import pytest
from elsewhere import ELSEWHERE, elsewhere

from layersearch.spaces.contracts import Arrays, Job, Outcome
from layersearch.spaces.optfs.evaluate import OptFSEvaluator, make_learner
from layersearch.spaces.optfs.genome import OptFSGenome, to_json
from layersearch.spaces.optfs.settings import OptFSSettings, effective, parse
from layersearch.spaces.optfs.space import OptFSSpace
from layersearch.spaces.tasks.ctr.arrays import from_arrays, to_arrays
from layersearch.spaces.tasks.ctr.planted import PlantedSettings, planted

TASK = PlantedSettings(
    mains=2, couples=0, noise=3, values=24, every=3, main_effect=2.0, exponent=0.3, rows=(4000, 1200, 800)
)
OVERRIDES = {
    "search.models": ["dcn", "fm", "lr"], "search.reference": "lr", "search.search_epochs": [4, 5],
    "search.lr": [0.001, 0.05], "task.warm_epochs": 1, "task.reviews": 1, "task.batch": 200, "task.epochs": 2,
    "task.decay": 0.0, "task.std": 0.1, "task.hidden": [4], "task.gate_lr": 0.05,
    "funnel.objectives": ["auc", "log_loss", "ratio", "parameters"],
}  # fmt: skip
LR = OptFSGenome(model="lr", search_epochs=4, price=2.0, lr=0.02).tidy()


def settings_of(**overrides: object) -> OptFSSettings:
    given = {k.replace("__", "."): v for k, v in overrides.items()}
    return parse(effective(None, "planted", None, "smoke", OVERRIDES | given))


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return to_arrays(planted(0, TASK).with_holdout())


def run(evaluator: OptFSEvaluator, genome: OptFSGenome, stage: str, checkpoint: bytes | None = None) -> Outcome:
    return evaluator.run(Job(0, stage, json.loads(json.dumps(to_json(genome))), 7, checkpoint=checkpoint))


def test_data_survive_as_arrays(arrays: Arrays) -> None:
    data, again = planted(0, TASK).with_holdout(), from_arrays(arrays)
    assert (again.name, again.fields, again.sizes, again.vocabulary) == (
        data.name,
        data.fields,
        data.sizes,
        data.vocabulary,
    )
    assert len(again.validation) == len(again.part("holdout")) == 600
    assert np.array_equal(again.part("holdout").ids, data.part("holdout").ids)
    assert data.truth is not None
    assert again.truth is not None
    assert np.array_equal(again.truth.values, data.truth.values)


def test_a_candidate_goes_through_all_stages(arrays: Arrays) -> None:
    evaluator = OptFSEvaluator(settings_of(), arrays, "cpu")
    quality = run(evaluator, LR, "quality")
    assert quality.state == "passed"
    assert quality.checkpoint is not None
    fitness = run(evaluator, LR, "fitness", quality.checkpoint)
    assert set(fitness.fitness) == {"auc", "log_loss", "ratio", "parameters"}
    assert fitness.fitness["auc"] > 0.7
    assert 0 < fitness.fitness["ratio"] < 0.6
    assert fitness.fitness["parameters"] < 125 * 0.6 + 3
    assert fitness.metrics["precision"] > 0.8
    assert fitness.metrics["recall"] > 0.8
    rerank = run(evaluator, LR, "rerank:0")
    test = run(evaluator, LR, "test:0", rerank.checkpoint)
    assert test.fitness["ratio"] == rerank.fitness["ratio"]
    assert test.fitness["auc"] != rerank.fitness["auc"]
    assert test.fitness == run(evaluator, LR, "test:0").fitness


def test_at_the_cut_all_is_final_but_how_well_it_predicts(arrays: Arrays) -> None:
    evaluator, genome = (
        OptFSEvaluator(settings_of(fidelity__rungs=[2]), arrays, "cpu"),
        replace(LR, pressure="ratio", ratio=0.2).tidy(),
    )
    early, cut = run(evaluator, genome, "fitness@2"), run(evaluator, genome, "fitness@cut")
    end = run(evaluator, genome, "fitness", cut.checkpoint)
    assert cut.fitness["auc"] == end.metrics["cut_auc"] != end.fitness["auc"]
    for name in ("ratio", "parameters"):
        assert cut.fitness[name] == end.fitness[name]
    assert set(early.fitness) == {"auc", "log_loss"}, "nothing is selected yet"
    learner = make_learner(genome, evaluator.settings.task, evaluator.data, 7)
    learner.run(max_steps=2 * learner.steps_per_epoch)
    assert early.fitness["auc"] == learner.history[-1]["auc"]
    learner.run(max_steps=2 * learner.steps_per_epoch)
    assert cut.fitness["auc"] != learner.history[-1]["auc"], "that was before the cut"


def test_an_objective_that_is_not_measured_at_the_end_is_an_error(
    arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = OptFSEvaluator(settings_of(fidelity__rungs=[2]), arrays, "cpu")
    monkeypatch.setattr(evaluator, "_of_pruned", lambda _: {})
    cut = run(evaluator, LR, "fitness@cut")
    assert set(cut.fitness) == {"auc", "log_loss", "ratio"}
    with pytest.raises(KeyError, match="parameters"):
        run(evaluator, LR, "fitness", cut.checkpoint)


@pytest.mark.parametrize("genome", [LR, replace(LR, model="dcn", operator="own", gates="value+pair")], ids=str)
def test_fitness_continues_quality_bit_for_bit(arrays: Arrays, genome: OptFSGenome) -> None:
    evaluator = OptFSEvaluator(settings_of(), arrays, "cpu")
    parts = run(evaluator, genome, "fitness", run(evaluator, genome, "quality").checkpoint)
    whole = run(evaluator, genome, "fitness")
    assert parts == whole


def test_what_does_not_learn_is_rejected(arrays: Arrays) -> None:
    genome = replace(LR, model="fm", operator="inner", lr=1e-6)
    outcome = run(OptFSEvaluator(settings_of(), arrays, "cpu"), genome, "quality")
    assert outcome.state == "rejected"
    assert outcome.measured is not None
    assert outcome.limit is not None
    assert outcome.measured <= outcome.limit == 0.53


def test_a_loss_that_is_not_finite_is_rejected(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = OptFSEvaluator(settings_of(), arrays, "cpu")
    monkeypatch.setattr("torch.nn.functional.binary_cross_entropy_with_logits", lambda z, y: z.sum() * float("nan"))
    outcome = run(evaluator, LR, "quality")
    assert (outcome.state, outcome.reason, outcome.measured) == ("rejected", "loss is not finite", 1.0)


def test_a_stage_ends_at_its_time_limit(arrays: Arrays) -> None:
    evaluator = OptFSEvaluator(settings_of(), arrays, "cpu")
    outcome = evaluator.run(Job(0, "fitness", to_json(LR), 1), time_limit_s=0.0)
    assert outcome.state == "failed"
    assert "time limit" in outcome.reason
    assert min(evaluator.time_limits().values()) >= 30


def test_controls_keep_their_ratio_and_are_worse(arrays: Arrays) -> None:
    settings = settings_of()
    space, evaluator = OptFSSpace(settings), OptFSEvaluator(settings, arrays, "cpu")
    mine = run(evaluator, LR, "fitness")
    for name, genome in space.controls(LR, dict(mine.fitness)).items():
        other = run(evaluator, genome, "fitness")
        if name == "full":
            assert other.fitness["ratio"] == 1
        else:
            assert other.fitness["ratio"] == pytest.approx(mine.fitness["ratio"], abs=0.005)
            assert other.fitness["auc"] < mine.fitness["auc"] - 0.02


def test_controls_of_pairs_keep_pairs_and_follow_their_seed(arrays: Arrays) -> None:
    data, task = from_arrays(arrays), settings_of().task
    genome = OptFSGenome(gates="random", ratio=0.5, pair_ratio=0.3).tidy()

    def kept(seed: int, gates: str) -> tuple[int, bytes]:
        selection = make_learner(replace(genome, gates=gates), task, data, seed).gates.selection()
        return int(selection.pairs.sum()), selection.pairs.numpy().tobytes()

    assert kept(0, "random")[0] == kept(0, "frequency")[0] == 3
    assert kept(0, "random") == kept(0, "random")
    assert kept(0, "frequency") == kept(1, "frequency")
    assert len({kept(seed, "random")[1] for seed in range(8)}) > 1


def test_controls_of_a_winner_without_pairs_have_none(arrays: Arrays) -> None:
    settings = settings_of()
    space, data = OptFSSpace(settings), from_arrays(arrays)
    winner = replace(LR, model="fm", operator="inner", gates="value+pair")
    controls = space.controls(winner, {"ratio": 0.5, "pair_ratio": 0.0})
    for name in ("frequency", "random"):
        learner = make_learner(controls[name], settings.task, data, 0)
        assert not learner.gates.selection().pairs.any()
        assert learner.run(max_steps=1) is False
        assert "none of the pairs" in space.formula(controls[name])


def test_controls_of_products_shut_products_alone(arrays: Arrays) -> None:
    settings = settings_of(funnel__objectives=["auc", "ratio"])
    space, evaluator = OptFSSpace(settings), OptFSEvaluator(settings, arrays, "cpu")
    winner = replace(LR, model="fm", operator="inner", gates="product", pressure="ratio", ratio=0.3).tidy()
    mine = run(evaluator, winner, "fitness")
    controls = space.controls(winner, dict(mine.fitness) | dict(mine.metrics))
    for genome in (controls["frequency"], controls["random"]):
        other = run(evaluator, genome, "fitness")
        assert other.fitness["ratio"] == mine.fitness["ratio"] == 1
        assert other.metrics["kept_product"] == mine.metrics["kept_product"] == pytest.approx(0.3, abs=0.005)
        selection = make_learner(genome, settings.task, evaluator.data, 0).gates.selection()
        assert selection.values.all()
        assert selection.pairs.all()


def test_latency_is_that_of_the_reference_model_with_all_values(arrays: Arrays) -> None:
    """The odds of a false alarm are those that half of 11 pairs are off by a factor of three."""
    settings = settings_of(funnel__objectives=["auc", "latency"])
    space = OptFSSpace(settings)
    assert space.objectives[1].unit == f"× full {settings.search.reference}"
    found = run(OptFSEvaluator(settings, arrays, "cpu"), space.baselines()["full"], "fitness")
    assert 1 / 3 < found.fitness["latency"] < 3


def test_stages_are_run_on_the_device_of_the_run(arrays: Arrays) -> None:
    """All of them: what is measured is the CPU's within rounding, times are those of the device."""
    objectives = ["auc", "log_loss", "ratio", "parameters", "latency"]
    settings = settings_of(funnel__objectives=objectives, task__epochs=1, task__batch=1000)
    genome = replace(LR, gates="value+pair", model="fm", operator="inner", lr=0.005).tidy()
    here = run(OptFSEvaluator(settings, arrays, "cpu"), genome, "fitness")
    with elsewhere():
        evaluator = OptFSEvaluator(settings, arrays, str(ELSEWHERE))
        assert {p.device for p in evaluator._reference.parameters()} == {ELSEWHERE}
        assert all(limit > 0 for limit in evaluator.time_limits().values())
        quality = run(evaluator, genome, "quality")
        there = run(evaluator, genome, "fitness", quality.checkpoint)
        rerank = run(evaluator, genome, "rerank:0", quality.checkpoint)
        test = run(evaluator, genome, "test:0", rerank.checkpoint)
    assert [o.reason for o in (quality, there, rerank, test)] == [""] * 4
    assert there.fitness.pop("latency") > 0  # type: ignore[attr-defined]
    here.fitness.pop("latency")  # type: ignore[attr-defined]
    assert there.fitness == pytest.approx(here.fitness, rel=1e-3)
    assert there.metrics == pytest.approx(here.metrics, rel=1e-3)

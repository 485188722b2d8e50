"""The funnel of the kan space: what each stage measures, what it turns away, and how stages go on from each other."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from layersearch.primitives import BASES
from layersearch.spaces.contracts import Job
from layersearch.spaces.kan.evaluate import KANEvaluator
from layersearch.spaces.kan.genome import KANGenome, make, to_json
from layersearch.spaces.kan.network import count_parameters
from layersearch.spaces.kan.published import PUBLISHED
from layersearch.spaces.kan.settings import effective, parse
from layersearch.spaces.kan.space import KANSpace
from layersearch.spaces.tasks.regression import Evaluation, TrainResult

STEPS = {
    "task.points": 150,
    "task.test_points": 60,
    "task.quality_steps": 3,
    "task.fitness_steps": 9,
    "task.rerank_steps": 6,
    "funnel.quality_rmse": 5.0,  # three steps do not bring a fresh network below 1
}


def evaluator_of(data: str = "fn:r1", **overrides: Any) -> KANEvaluator:
    given = {k.replace("__", "."): v for k, v in overrides.items()}
    settings = parse(effective(None, data, None, "smoke", STEPS | given))
    return KANEvaluator(settings, KANSpace(settings).load_data(), "cpu")


@pytest.fixture(scope="module")
def evaluator() -> KANEvaluator:
    return evaluator_of()


def job(stage: str, genome: KANGenome = PUBLISHED["chebykan"], seed: int = 7, checkpoint: bytes | None = None) -> Job:
    return Job(0, stage, to_json(genome), seed, checkpoint=checkpoint)


def test_fitness_goes_on_from_quality(evaluator: KANEvaluator) -> None:
    quality = evaluator.run(job("quality"))
    assert quality.state == "passed"
    fitness = evaluator.run(job("fitness", checkpoint=quality.checkpoint))
    whole = evaluator.run(job("fitness"))  # the same training in one piece
    assert fitness == whole
    assert set(fitness.fitness) == {"rmse", "parameters"}
    assert fitness.fitness["parameters"] == count_parameters(PUBLISHED["chebykan"], 2, 1)
    assert fitness.metrics["rmse_in_units"] == pytest.approx(fitness.fitness["rmse"] * evaluator.task.target_std)
    assert evaluator.run(job("quality", seed=8)).metrics != quality.metrics


def test_at_a_rung_the_network_is_measured_as_it_is() -> None:
    evaluator = evaluator_of(fidelity__rungs=[3, 6])
    network = evaluator.kan(PUBLISHED["chebykan"], 7)
    evaluator.task.train(network, until_step=6, total_steps=9, seed=7)
    rung = evaluator.run(job("fitness@6", checkpoint=evaluator.run(job("quality")).checkpoint))
    assert rung.fitness["rmse"] == evaluator.task.evaluate(network, "validation").normalised
    assert set(rung.metrics) == {"rmse_in_units@6"}
    quality = evaluator.run(job("quality"))
    assert quality.fitness == {"rmse": quality.metrics["quality_rmse"], "parameters": rung.fitness["parameters"]}


def test_rerank_is_on_the_hold_out_and_test_on_the_test_part(evaluator: KANEvaluator) -> None:
    rerank = evaluator.run(job("rerank:0"))
    test = evaluator.run(job("test:0", checkpoint=rerank.checkpoint))
    assert list(rerank.fitness) == list(test.fitness) == ["rmse"]
    network = evaluator.kan(PUBLISHED["chebykan"], 7)
    evaluator.task.train(network, until_step=6, total_steps=6, seed=7)
    for outcome, part in ((rerank, "holdout"), (test, "test")):
        assert outcome.fitness["rmse"] == evaluator.task.evaluate(network, part).normalised  # type: ignore[arg-type]


def test_only_the_objectives_that_were_asked_for(evaluator: KANEvaluator) -> None:
    assert set(evaluator_of(funnel__objectives=["rmse"]).run(job("fitness")).fitness) == {"rmse"}


def test_what_predicts_worse_than_the_limit_is_rejected() -> None:
    outcome = evaluator_of(funnel__quality_rmse=1e-9).run(job("quality"))
    assert (outcome.state, outcome.limit) == ("rejected", 1e-9)
    assert "error above the limit" in outcome.reason


def test_the_deadline_fails_a_stage(evaluator: KANEvaluator) -> None:
    late = evaluator.run(job("fitness"), time_limit_s=-1.0)
    assert (late.state, late.reason) == ("failed", "the time limit was reached")


def test_outputs_that_are_not_finite_have_no_error(evaluator: KANEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator.task, "evaluate", lambda *_: Evaluation(None, None, 1))
    outcome = evaluator.run(job("fitness"))
    assert (outcome.state, outcome.reason) == ("rejected", "outputs are not finite")
    monkeypatch.setattr(evaluator.task, "train", lambda *_, **__: TrainResult(3, "nonfinite", "", (), lambda: b""))
    outcome = evaluator.run(job("fitness"))
    assert (outcome.state, outcome.reason, outcome.measured) == ("rejected", "loss is not finite", 4.0)


def test_a_genome_that_cannot_be_built_is_a_failed_outcome(evaluator: KANEvaluator) -> None:
    outcome = evaluator.run(job("quality", replace(PUBLISHED["fastkan"], hidden=(1,))))
    assert outcome.state == "failed"
    assert "layernorm of 1 feature" in outcome.reason
    broken = evaluator.run(Job(0, "quality", {"format": 9}, 1))
    assert broken.state == "failed"
    assert evaluator.run(job("polish")).state == "failed"


def test_every_stage_has_a_time_limit(evaluator: KANEvaluator) -> None:
    limits = evaluator.time_limits()
    assert set(limits) == {"quality", "fitness", "rerank:0", "rerank:1", "test:0", "test:1"}
    assert all(limit >= 30 for limit in limits.values())


def test_no_global_generator_moves(evaluator: KANEvaluator) -> None:
    before = torch.get_rng_state()
    evaluator.run(job("quality", PUBLISHED["kat"]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", BASES)
def test_every_basis_can_be_trained(evaluator: KANEvaluator, name: str) -> None:
    assert evaluator.run(job("fitness", make(name, hidden=(4,)))).state == "passed"

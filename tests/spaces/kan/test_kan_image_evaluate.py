"""The funnel of the kan space on images: what each stage measures, and how stages go on from each other."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from layersearch.primitives import BASES
from layersearch.spaces.contracts import Job
from layersearch.spaces.kan.genome import make as layer
from layersearch.spaces.kan.images.evaluate import ImageKANEvaluator
from layersearch.spaces.kan.images.genome import ImageGenome, make, to_json
from layersearch.spaces.kan.images.network import count_parameters
from layersearch.spaces.kan.images.published import plain_like
from layersearch.spaces.kan.settings import effective
from layersearch.spaces.kan.space import from_settings
from layersearch.spaces.tasks.images import Evaluation, TrainResult
from layersearch.spaces.tasks.images.checkpoint import Progress
from layersearch.spaces.tasks.images.models import ConvShape, ViTShape

STEPS = {
    "task.quality_steps": 2,
    "task.fitness_steps": 5,
    "task.rerank_steps": 3,
    "task.validation_cap": 50,
    "task.batch": 8,
    "network.reference_conv": [4, 4],
    "funnel.quality_chance": 0.0,  # two steps teach nothing
}
CONV = make(layer("gram"), ConvShape(side=16, stem=4, channels=(4, 4), kernel=3, pool="max"))
VIT = make(layer("rational", base="none"), ViTShape(side=16, patch=8, width=8, depth=1, heads=2, hidden=8))


def evaluator_of(**overrides: Any) -> ImageKANEvaluator:
    given = {k.replace("__", "."): v for k, v in overrides.items()}
    space = from_settings(effective(None, "digits", None, "smoke", STEPS | given))
    made = space.evaluator(space.load_data(), "cpu")
    assert isinstance(made, ImageKANEvaluator)
    return made


@pytest.fixture(scope="module")
def evaluator() -> ImageKANEvaluator:
    return evaluator_of()


def job(stage: str, genome: ImageGenome = CONV, seed: int = 7, checkpoint: bytes | None = None) -> Job:
    return Job(0, stage, to_json(genome), seed, checkpoint=checkpoint)


@pytest.mark.parametrize("genome", [CONV, VIT], ids=["conv", "kat"])
def test_fitness_goes_on_from_quality(evaluator: ImageKANEvaluator, genome: ImageGenome) -> None:
    quality = evaluator.run(job("quality", genome))
    assert quality.state == "passed", quality.reason
    fitness = evaluator.run(job("fitness", genome, checkpoint=quality.checkpoint))
    whole = evaluator.run(job("fitness", genome))  # the same training in one piece
    assert fitness == whole
    assert set(fitness.fitness) == {"accuracy", "parameters"}
    assert fitness.fitness["parameters"] == count_parameters(genome, 1, 10)
    assert evaluator.run(job("fitness", genome, seed=8)).metrics != fitness.metrics


def test_rerank_is_on_the_hold_out_and_test_on_the_test_part(evaluator: ImageKANEvaluator) -> None:
    rerank = evaluator.run(job("rerank:0"))
    test = evaluator.run(job("test:0", checkpoint=rerank.checkpoint))
    assert list(rerank.fitness) == list(test.fitness) == ["accuracy"]
    model = evaluator.kan(CONV, 7)
    evaluator.task.train(model, until_step=3, total_steps=3, seed=7)
    for outcome, part in ((rerank, "holdout"), (test, "test")):
        assert outcome.fitness["accuracy"] == evaluator.task.evaluate(model, part).accuracy  # type: ignore[arg-type]


def test_only_the_objectives_that_were_asked_for() -> None:
    assert set(evaluator_of(funnel__objectives=["accuracy"]).run(job("fitness")).fitness) == {"accuracy"}


@pytest.mark.parametrize("genome", [CONV, VIT], ids=["conv", "kat"])
def test_costs_are_those_of_the_model_against_an_ordinary_one(genome: ImageGenome) -> None:
    of_all = evaluator_of(funnel__objectives=["accuracy", "latency", "memory", "parameters"])
    fitness, ordinary = (of_all.run(job("fitness", one)).fitness for one in (genome, plain_like(genome)))
    assert list(fitness) == ["accuracy", "latency", "memory", "parameters"]
    assert ordinary["memory"] == 1.0
    assert 0.5 < ordinary["latency"] < 2
    assert fitness["memory"] > 1
    assert fitness["latency"] > 0


def test_what_guesses_worse_than_the_limit_is_rejected() -> None:
    outcome = evaluator_of(funnel__quality_chance=9.9).run(job("quality"))
    assert (outcome.state, outcome.limit) == ("rejected", pytest.approx(0.99))
    assert outcome.reason == "accuracy below the limit after 2 steps"


def test_the_deadline_fails_a_stage(evaluator: ImageKANEvaluator) -> None:
    late = evaluator.run(job("fitness"), time_limit_s=-1.0)
    assert (late.state, late.reason) == ("failed", "the time limit was reached")


def test_logits_that_are_not_finite_have_no_accuracy(
    evaluator: ImageKANEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator.task, "evaluate", lambda *_: Evaluation(None, False, 1))
    outcome = evaluator.run(job("fitness"))
    assert (outcome.state, outcome.reason) == ("rejected", "logits are not finite")
    ended = TrainResult(3, "nonfinite", "", (), lambda: b"", 0.0, Progress(3, 9, 0, "", ()))
    monkeypatch.setattr(evaluator.task, "train", lambda *_, **__: ended)
    outcome = evaluator.run(job("fitness"))
    assert (outcome.state, outcome.reason, outcome.measured) == ("rejected", "loss is not finite", 4.0)


def test_what_cannot_be_built_or_is_no_genome_fails(evaluator: ImageKANEvaluator) -> None:
    thin = make(layer("rbf", domain="layernorm"), ConvShape(side=16, stem=1, channels=(1,), kernel=3, pool="max"))
    outcome = evaluator.run(job("quality", thin))
    assert outcome.state == "failed"
    assert "layernorm of 1 feature" in outcome.reason
    other = evaluator.run(job("quality", replace(VIT, shape=replace(VIT.shape, side=32))))
    assert other.state == "failed", "its number of tokens is another"
    assert evaluator.run(Job(0, "quality", {"format": 9}, 1)).state == "failed"
    assert evaluator.run(job("polish")).state == "failed"


def test_every_stage_has_a_time_limit(evaluator: ImageKANEvaluator) -> None:
    limits = evaluator.time_limits()
    assert set(limits) == {"quality", "fitness", "rerank:0", "rerank:1", "test:0", "test:1"}
    assert all(limit >= 30 for limit in limits.values())


def test_no_global_generator_moves(evaluator: ImageKANEvaluator) -> None:
    before = torch.get_rng_state()
    evaluator.run(job("quality", VIT))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", BASES)
def test_every_basis_can_be_trained(evaluator: ImageKANEvaluator, name: str) -> None:
    for genome in (CONV, VIT):
        outcome = evaluator.run(job("quality", replace(genome, layer=layer(name, hidden=()))))
        assert outcome.state == "passed", outcome.reason

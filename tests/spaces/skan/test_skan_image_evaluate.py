"""A trial of skan on images: three stages in one training, an exact hand-over, and what it says was selected."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from layersearch.primitives.cost import peak_bytes
from layersearch.primitives.layers.mixed import MixedKANConv2d, MixedKANLinear
from layersearch.primitives.layers.selective import SelectiveKANConv2d
from layersearch.spaces.contracts import Job
from layersearch.spaces.kan.images.published import plain_like
from layersearch.spaces.skan.genome import make as layer
from layersearch.spaces.skan.images.evaluate import ImageSKANEvaluator
from layersearch.spaces.skan.images.genome import AnyImageGenome, make, to_json
from layersearch.spaces.skan.images.network import build, prune, pruned_network
from layersearch.spaces.skan.images.space import ImageSKANSpace
from layersearch.spaces.skan.images.training import train
from layersearch.spaces.skan.network import set_stage
from layersearch.spaces.skan.selection import chosen_in, chosen_of
from layersearch.spaces.skan.settings import effective
from layersearch.spaces.skan.space import from_settings
from layersearch.spaces.tasks.images.classifier import TrainResult
from layersearch.spaces.tasks.images.models import ConvShape

STEPS = {
    "task.quality_steps": 3,
    "task.fitness_steps": 10,
    "task.rerank_steps": 10,
    "task.validation_cap": 50,
    "task.batch": 32,
    "task.shrink": 2,
    "task.image_size": 8,
    "task.crop": 8,
    "task.eval_size": 8,
    "network.reference_conv": [4, 4],
    "funnel.quality_chance": 0.0,  # three steps teach nothing
}
LAYER = layer({"chebyshev": {}, "mexican_hat": {}, "piecewise_linear": {}}, shares=(0.2, 0.3, 0.5))
GENOME = make(LAYER, ConvShape(side=8, stem=4, channels=(4, 4), kernel=3, pool="max"), "kan")


def evaluator_of(**overrides: Any) -> ImageSKANEvaluator:
    given = {k.replace("__", "."): v for k, v in overrides.items()}
    space = from_settings(effective(None, "digits", None, "smoke", STEPS | given))
    assert isinstance(space, ImageSKANSpace)
    made = space.evaluator(space.load_data(), "cpu")
    assert isinstance(made, ImageSKANEvaluator)
    return made


@pytest.fixture(scope="module")
def evaluator() -> ImageSKANEvaluator:
    return evaluator_of()


def job(stage: str, genome: AnyImageGenome = GENOME, seed: int = 7, checkpoint: bytes | None = None) -> Job:
    return Job(0, stage, to_json(genome), seed, checkpoint=checkpoint)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gate": "gumbel", "pruning": "gate", "domain": "minmax"},
        {"gate": "straight", "pruning": "drop", "base": "none"},
        {"shares": (0.0, 1.0, 0.0), "domain": "layernorm"},
    ],
    ids=str,
)
def test_a_training_cut_anywhere_is_the_same_training(evaluator: ImageSKANEvaluator, changes: dict[str, Any]) -> None:
    genome = replace(GENOME, layer=replace(GENOME.layer, **changes))
    whole, at_once = train(evaluator.task, genome, until_step=10, total_steps=10, seed=5)
    assert chosen_of(whole) is not None
    checkpoint = None
    for until in (1, 4, 5, 7, 10):
        _, rung = train(evaluator.task, genome, until_step=until, total_steps=10, seed=5, checkpoint=checkpoint)
        checkpoint = rung.checkpoint()
    assert rung.steps == 10
    assert rung.accuracy == at_once.accuracy
    equal = checkpoint == at_once.checkpoint()
    assert equal  # by itself: pytest takes minutes to show how long bytes differ


def test_the_network_is_not_packed_to_be_pruned(evaluator: ImageSKANEvaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then it has been changed, and its checkpoint would be of another network."""
    real = evaluator.task.train

    def unpacked() -> bytes:
        raise AssertionError("packed")

    def without(*args: Any, **how: Any) -> TrainResult:
        return replace(real(*args, **how), _capture=unpacked)

    whole, result = train(evaluator.task, GENOME, until_step=7, total_steps=10, seed=5)
    monkeypatch.setattr(evaluator.task, "train", without)
    model, same = train(evaluator.task, GENOME, until_step=7, total_steps=10, seed=5)
    assert result.progress == same.progress
    assert result.progress.recent != ()
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_pruning_comes_at_its_step_and_leaves_one_space_per_channel(evaluator: ImageSKANEvaluator) -> None:
    before, at = (train(evaluator.task, GENOME, until_step=n, total_steps=10, seed=5) for n in (4, 5))
    assert chosen_in(before[1].checkpoint()) is None
    assert chosen_in(at[1].checkpoint()) == chosen_of(at[0])
    layers = [module for module in at[0] if isinstance(module, MixedKANConv2d | MixedKANLinear)]
    assert [len(m.selected()) for m in layers] == [4, 4, 4]
    for one in layers[:2]:
        used = sum(one.pool[m].n_functions * n for m, n in zip(one.used, one.members, strict=True))
        assert one.weight.shape == (4, used + 4, 3, 3), "all features in one convolution"


def test_gates_learn_in_the_selective_stage_alone(evaluator: ImageSKANEvaluator) -> None:
    models = [train(evaluator.task, GENOME, until_step=n, total_steps=10, seed=5)[0] for n in (2, 4)]
    full, selective = ([m for m in model if isinstance(m, SelectiveKANConv2d)] for model in models)
    assert not any(bool(one.gates.logits.any()) for one in full)
    assert all(bool(one.gates.logits.any()) for one in selective)


def test_one_hot_gates_are_handed_over_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    genome = replace(GENOME, layer=replace(GENOME.layer, gate="straight"))
    model = build(genome, 1, 10, generator=generator, dtype=torch.float64)
    set_stage(model, 0.1, generator)
    for module in model.modules():
        if hasattr(module, "gates"):
            nn.init.normal_(module.gates.logits, generator=generator)
    images = torch.randn(32, 1, 16, 16, generator=generator, dtype=torch.float64)
    model.train()
    wanted = model(images)  # by the moments of this batch, as is what comes
    pruned = prune(model, "drop", images, 32)
    assert len({m for layer in chosen_of(pruned) or () for m in layer}) == 3
    torch.testing.assert_close(pruned.train()(images), wanted, rtol=1e-9, atol=1e-9)


def test_norms_get_the_moments_of_the_pruned_layers_and_keep_their_momentum() -> None:
    generator = torch.Generator().manual_seed(0)
    model = build(GENOME, 1, 10, generator=generator, dtype=torch.float64)
    images = torch.randn(32, 1, 16, 16, generator=generator, dtype=torch.float64)
    pruned = prune(model.train(), "fit", images, 16)
    assert pruned.training
    x = images
    pruned.eval()
    for module in pruned:
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == 0.1
            means = torch.stack([part.mean((0, 2, 3)) for part in x.split(16)]).mean(0)
            assert torch.allclose(module.running_mean, means, atol=0.05 * float(x.detach().std()))
        x = module(x)


def test_fitness_goes_on_from_quality_and_tells_the_selection(evaluator: ImageSKANEvaluator) -> None:
    quality = evaluator.run(job("quality"))
    assert (quality.state, quality.selection) == ("passed", None)
    fitness = evaluator.run(job("fitness", checkpoint=quality.checkpoint))
    assert fitness == evaluator.run(job("fitness"))  # neither has a checkpoint
    model, _ = train(evaluator.task, GENOME, until_step=10, total_steps=10, seed=7)
    names = [list(m.selected()) for m in model if isinstance(m, MixedKANConv2d | MixedKANLinear)]
    assert fitness.selection == {"layers": names}
    assert fitness.fitness["parameters"] == sum(p.numel() for p in model.parameters())
    same = pruned_network(GENOME, 1, 10, chosen_of(model) or ())
    assert fitness.fitness["parameters"] == sum(p.numel() for p in same.parameters())


def test_rerank_and_test_have_their_parts_and_select(evaluator: ImageSKANEvaluator) -> None:
    rerank = evaluator.run(job("rerank:0"))
    test = evaluator.run(job("test:0", checkpoint=rerank.checkpoint))
    model, _ = train(evaluator.task, GENOME, until_step=10, total_steps=10, seed=7)
    for outcome, part in ((rerank, "holdout"), (test, "test")):
        assert outcome.fitness == {"accuracy": evaluator.task.evaluate(model, part).accuracy}  # type: ignore[arg-type]
        assert outcome.selection == rerank.selection is not None


def test_baselines_are_trained_and_select_nothing(evaluator: ImageSKANEvaluator) -> None:
    for genome in ImageSKANSpace(evaluator.settings).baselines().values():
        outcome = evaluator.run(job("fitness", genome))
        assert (outcome.state, outcome.selection) == ("passed", None)
        assert set(outcome.fitness) == {"accuracy", "parameters"}


def test_costs_are_those_of_the_pruned_network_against_an_ordinary_one() -> None:
    of_all = evaluator_of(funnel__objectives=["accuracy", "latency", "memory", "parameters"])
    fitness = of_all.run(job("fitness")).fitness
    assert list(fitness) == ["accuracy", "latency", "memory", "parameters"]
    pruned, _ = train(of_all.task, GENOME, until_step=10, total_steps=10, seed=7)
    x = torch.randn(32, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    ordinary, unpruned = of_all.kan(plain_like(GENOME), 0), build(GENOME, 1, 10)
    memory, of_unpruned = (peak_bytes(m.train(), x) / peak_bytes(ordinary.train(), x) for m in (pruned, unpruned))
    assert fitness["memory"] == memory
    assert 1 < memory < of_unpruned / 2
    assert fitness["latency"] > 0


def test_ends_before_the_measurement_and_every_stage_has_a_limit(evaluator: ImageSKANEvaluator) -> None:
    late = evaluator.run(job("fitness"), time_limit_s=-1.0)
    assert (late.state, late.reason) == ("failed", "the time limit was reached")
    strict = evaluator_of(funnel__quality_chance=9.9).run(job("quality"))
    assert (strict.state, strict.limit) == ("rejected", pytest.approx(0.99))
    assert evaluator.run(Job(0, "quality", {"format": 9}, 1)).state == "failed"
    assert evaluator.run(job("polish")).state == "failed"
    before = torch.get_rng_state()
    limits = evaluator.time_limits()
    assert torch.equal(torch.get_rng_state(), before)
    assert set(limits) == {"quality", "fitness", "rerank:0", "rerank:1", "test:0", "test:1"}
    assert all(limit >= 30 for limit in limits.values())

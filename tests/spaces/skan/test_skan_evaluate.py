"""A trial of skan: three stages in one training, cut anywhere without a trace, and what it says was selected."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from layersearch.primitives.cost import peak_bytes
from layersearch.primitives.layers.mixed import MixedKANLinear
from layersearch.spaces.contracts import Job
from layersearch.spaces.kan.genome import make as kan_genome
from layersearch.spaces.skan.evaluate import SKANEvaluator
from layersearch.spaces.skan.genome import Genome, make, to_json
from layersearch.spaces.skan.published import PUBLISHED
from layersearch.spaces.skan.selection import chosen_in, chosen_of
from layersearch.spaces.skan.settings import effective, parse
from layersearch.spaces.skan.space import SKANSpace
from layersearch.spaces.skan.training import train

STEPS = {
    "task.points": 150,
    "task.test_points": 60,
    "task.quality_steps": 3,
    "task.fitness_steps": 10,
    "task.rerank_steps": 10,
    "funnel.quality_rmse": 50.0,
}
GENOME = make({"chebyshev": {}, "mexican_hat": {}, "piecewise_linear": {}}, shares=(0.2, 0.3, 0.5), hidden=(5,))


def evaluator_of(data: str = "fn:r1", **overrides: Any) -> SKANEvaluator:
    given = {k.replace("__", "."): v for k, v in overrides.items()}
    settings = parse(effective(None, data, None, "smoke", STEPS | given))
    return SKANEvaluator(settings, SKANSpace(settings).load_data(), "cpu")


@pytest.fixture(scope="module")
def evaluator() -> SKANEvaluator:
    return evaluator_of()


def job(stage: str, genome: Genome = GENOME, seed: int = 7, checkpoint: bytes | None = None) -> Job:
    return Job(0, stage, to_json(genome), seed, checkpoint=checkpoint)


RECIPES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"gate": "gumbel", "pruning": "gate"}, {"task__batch": 16}),
    ({"gate": "straight", "pruning": "drop", "domain": "minmax"}, {"task__optimizer": "adamw"}),
    ({"shares": (0.0, 1.0, 0.0), "domain": "layernorm"}, {}),
    ({}, {"task__optimizer": "lbfgs", "task__learning_rate": 1.0}),
]


@pytest.mark.parametrize(("changes", "task"), RECIPES, ids=str)
def test_a_training_cut_anywhere_is_the_same_training(changes: dict[str, Any], task: dict[str, Any]) -> None:
    genome, regression = replace(GENOME, **changes), evaluator_of(**task).task
    whole, at_once = train(regression, genome, until_step=10, total_steps=10, seed=5)
    assert chosen_of(whole) is not None
    for cuts in ((1, 4, 5, 6, 10), (3, 10), (9, 10)):
        checkpoint = None
        for until in cuts:
            network, rung = train(regression, genome, until_step=until, total_steps=10, seed=5, checkpoint=checkpoint)
            checkpoint = rung.checkpoint()
        assert rung.steps == 10
        assert checkpoint == at_once.checkpoint()
        assert all(a.equal(b) for a, b in zip(network.state_dict().values(), whole.state_dict().values(), strict=True))


def test_pruning_comes_at_its_step_and_shrinks_the_network(evaluator: SKANEvaluator) -> None:
    before, at = (train(evaluator.task, GENOME, until_step=n, total_steps=10, seed=5) for n in (4, 5))
    assert chosen_in(before[1].checkpoint()) is None
    assert chosen_in(at[1].checkpoint()) == chosen_of(at[0])
    assert all(isinstance(layer, MixedKANLinear) for layer in at[0])
    sizes = [sum(p.numel() for p in network.parameters()) for network, _ in (before, at)]
    assert sizes[1] < sizes[0] / 2


def test_gates_learn_in_the_selective_stage_alone(evaluator: SKANEvaluator) -> None:
    full, selective = (train(evaluator.task, GENOME, until_step=n, total_steps=10, seed=5)[0] for n in (2, 4))
    assert not any(bool(layer.gates.logits.any()) for layer in full)
    assert all(bool(layer.gates.logits.any()) for layer in selective)


def test_fitness_goes_on_from_quality_and_tells_the_selection(evaluator: SKANEvaluator) -> None:
    quality = evaluator.run(job("quality"))
    assert (quality.state, quality.selection) == ("passed", None)
    fitness = evaluator.run(job("fitness", checkpoint=quality.checkpoint))
    assert fitness == evaluator.run(job("fitness"))
    network, _ = train(evaluator.task, GENOME, until_step=10, total_steps=10, seed=7)
    assert fitness.selection == {"layers": [list(layer.selected()) for layer in network]}
    assert [len(layer) for layer in fitness.selection["layers"]] == [2, 5]
    assert fitness.fitness["parameters"] == sum(p.numel() for p in network.parameters())


def test_at_a_rung_the_network_is_in_its_stage() -> None:
    """Before its pruning the error is that of all bases together, weighed by the gates as they are."""
    evaluator = evaluator_of(fidelity__rungs=[4, 5])
    errors = []
    for step in (4, 5):
        network, _ = train(evaluator.task, GENOME, until_step=step, total_steps=10, seed=7)
        assert (chosen_of(network) is None) == (step == 4)
        errors.append(evaluator.task.evaluate(network, "validation").normalised)
        rung = evaluator.run(job(f"fitness@{step}"))
        assert (rung.fitness, rung.selection) == ({"rmse": errors[-1]}, None)
    assert errors[0] != errors[1]


def test_costs_are_those_of_the_pruned_network() -> None:
    of_all = evaluator_of(funnel__objectives=["memory", "rmse", "latency", "parameters"])
    found = of_all.run(job("fitness"))
    network, _ = train(of_all.task, GENOME, until_step=10, total_steps=10, seed=7)
    x = torch.randn(1024, of_all.task.in_features, dtype=of_all.task.dtype)
    mlp = of_all.kan(kan_genome("mlp", hidden=GENOME.hidden), 0)
    assert list(found.fitness) == ["rmse", "latency", "memory", "parameters"]
    assert found.fitness["memory"] == peak_bytes(network.train(), x) / peak_bytes(mlp, x) > 1
    assert found.fitness["parameters"] == sum(p.numel() for p in network.parameters())
    assert found.fitness["latency"] > 0


def test_rerank_and_test_have_their_parts_and_select(evaluator: SKANEvaluator) -> None:
    rerank = evaluator.run(job("rerank:0"))
    test = evaluator.run(job("test:0", checkpoint=rerank.checkpoint))
    network, _ = train(evaluator.task, GENOME, until_step=10, total_steps=10, seed=7)
    for outcome, part in ((rerank, "holdout"), (test, "test")):
        assert outcome.fitness == {"rmse": evaluator.task.evaluate(network, part).normalised}  # type: ignore[arg-type]
        assert outcome.selection == rerank.selection is not None


def test_baselines_are_trained_and_select_nothing(evaluator: SKANEvaluator) -> None:
    for genome in SKANSpace(evaluator.settings).baselines().values():
        outcome = evaluator.run(job("fitness", genome))
        assert (outcome.state, outcome.selection) == ("passed", None)
        assert set(outcome.fitness) == {"rmse", "parameters"}


def test_ends_before_the_measurement(evaluator: SKANEvaluator) -> None:
    late = evaluator.run(job("fitness"), time_limit_s=-1.0)
    assert (late.state, late.reason) == ("failed", "the time limit was reached")
    strict = evaluator_of(funnel__quality_rmse=1e-9).run(job("quality"))
    assert (strict.state, strict.limit) == ("rejected", 1e-9)
    assert evaluator.run(Job(0, "quality", {"format": 9}, 1)).state == "failed"
    assert evaluator.run(job("polish")).state == "failed"


def test_no_global_generator_moves_and_every_stage_has_a_limit(evaluator: SKANEvaluator) -> None:
    before = torch.get_rng_state()
    evaluator.run(job("fitness", replace(GENOME, gate="gumbel")))
    assert torch.equal(torch.get_rng_state(), before)
    limits = evaluator.time_limits()
    assert set(limits) == {"quality", "fitness", "rerank:0", "rerank:1", "test:0", "test:1"}
    assert all(limit >= 30 for limit in limits.values())


@pytest.mark.slow
def test_a_trial_learns_what_single_bases_learn() -> None:
    """fn:r3, 300 steps: .12 to .13 with fitting (seeds 0, 3), .15 to .20 with a basis of the pool alone (3, 4)."""
    evaluator = evaluator_of("fn:r3", task__points=2000, task__fitness_steps=300, task__quality_steps=80)
    ours = evaluator.run(job("fitness", PUBLISHED["skan"])).fitness["rmse"]
    dropped = evaluator.run(job("fitness", replace(PUBLISHED["skan"], pruning="drop"))).fitness["rmse"]
    assert ours < 0.2
    assert ours < dropped

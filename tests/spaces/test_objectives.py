"""Objectives by name, and what the spaces measure of each cost."""

from typing import Any

import pytest

from layersearch.errors import RecipeError
from layersearch.primitives.lowering import LOWERINGS
from layersearch.spaces.contracts import Job, Objective
from layersearch.spaces.evonorm.evaluate import EvonormEvaluator
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.evonorm.settings import effective as evonorm_settings
from layersearch.spaces.evonorm.space import EvonormSpace
from layersearch.spaces.evonorm.space import from_settings as evonorm
from layersearch.spaces.kan.evaluate import KANEvaluator
from layersearch.spaces.kan.genome import make, to_json
from layersearch.spaces.kan.settings import effective as kan_settings
from layersearch.spaces.kan.space import from_settings as kan
from layersearch.spaces.objectives import COSTS, NOISY, cost_objectives, described, legal

ALL = ["parameters", "accuracy", "memory", "latency"]


def evonorm_of(names: list[str], lowering: str = "torch", **more: Any) -> EvonormSpace:
    given = {"funnel.objectives": names, **more}
    return evonorm(evonorm_settings("b", "digits", None, "smoke", given, lowering=lowering))


def test_names_are_put_in_order_and_checked() -> None:
    assert legal(["memory", "rmse", "latency"], "rmse") == ("rmse", "latency", "memory")
    for names, says in [
        (
            ["rmse", "latancy"],
            r"unknown objective 'latancy'; did you mean 'latency'\? \(known: rmse, latency, memory, ",
        ),
        (["memory"], "objectives must have rmse, each name once, got memory"),
        ([], "got none"),
        (["rmse", "rmse"], "each name once"),
    ]:
        with pytest.raises(ValueError, match=says):
            legal(names, "rmse")


def test_costs_have_units_and_no_weight() -> None:
    found = cost_objectives("MLP", "per channel")
    assert found["latency"] == Objective("latency", False, 0.0, "× MLP", noisy=True)
    assert found["parameters"] == Objective("parameters", False, 0.0, "per channel")
    assert [name for name in COSTS if found[name].noisy] == list(NOISY)
    assert described(["rmse", "parameters"], "it") == ()
    assert "no run repeats it" in described(["rmse", "latency"], "it")[0][1]
    assert "no run" not in described(["rmse", "memory"], "it")[0][1]


def test_evonorm_searches_for_the_accuracy_in_each_network_and_for_costs() -> None:
    networks = ["resnet", "mobilenetv2", "efficientnet"]
    plain = evonorm(evonorm_settings("b", "digits", None, "smoke"))
    assert [o.name for o in plain.objectives] == networks
    assert "cost" not in [stage.id for stage in plain.stages]
    space = evonorm_of(ALL)
    assert [o.name for o in space.objectives] == [*networks, "latency", "memory", "parameters"]
    assert [o.weight for o in space.objectives] == [1, 1, 1, 0, 0, 0]
    ids = [stage.id for stage in space.stages]
    assert ids.index("quality:resnet") < ids.index("cost") < ids.index("quality:mobilenetv2")
    assert dict(space.describe())["costs"].startswith("latency and memory of a forward and backward pass")
    with pytest.raises(RecipeError, match="objectives must have accuracy"):
        evonorm_of(["latency"])


@pytest.mark.slow
def test_every_stage_has_a_time_limit() -> None:
    space = evonorm_of(ALL)
    assert {stage.id for stage in space.stages} <= set(space.evaluator(space.load_data(), "cpu").time_limits())


@pytest.mark.parametrize("lowering", ["torch", "c"])
def test_evonorm_measures_the_layer_that_will_be_used(lowering: str) -> None:
    if LOWERINGS[lowering].why_unavailable() is not None:
        pytest.skip("no compiler here")
    space = evonorm_of(ALL, lowering)
    evaluator = EvonormEvaluator(space.settings, space.load_data(), "cpu")
    found = {}
    for name in ("bn-relu", "evonorm-b0"):
        outcome = evaluator.run(Job(0, "cost", space.to_json(PUBLISHED[name]), 3))
        assert outcome.state == "passed", outcome
        assert list(outcome.fitness) == ["latency", "memory", "parameters"]
        found[name] = dict(outcome.fitness)
    assert [found[name]["parameters"] for name in found] == [4, 3]
    assert all(costs["latency"] > 0.1 for costs in found.values())
    # Fused kernels hold fewer tensors than BatchNorm2d and ReLU one after the other, straight-line torch more.
    assert all((costs["memory"] < 1) == (lowering == "c") for costs in found.values())
    again = evaluator.run(Job(0, "cost", space.to_json(PUBLISHED["bn-relu"]), 4)).fitness
    assert {k: v for k, v in again.items() if k != "latency"} == {
        k: v for k, v in found["bn-relu"].items() if k != "latency"
    }


def test_evonorm_runs_a_layer_without_kernels_by_torch_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from layersearch.errors import KernelError
    from layersearch.primitives.lowering import swap
    from layersearch.spaces.evonorm.evaluate import KERNEL_FAILED

    space = evonorm_of(["accuracy", "parameters"], "torch", **{"lowering.name": "c"})
    evaluator = EvonormEvaluator(space.settings, space.load_data(), "cpu")
    build = swap.build_layer

    def no_kernel(*args: Any, lowering: str, **kwargs: Any) -> Any:
        if lowering == "c":
            raise KernelError("no compiler")
        return build(*args, lowering=lowering, **kwargs)

    monkeypatch.setattr(swap, "build_layer", no_kernel)
    outcome = evaluator.run(Job(0, "cost", space.to_json(PUBLISHED["bn-relu"]), 3))
    assert dict(outcome.metrics) == {KERNEL_FAILED: 1.0}
    assert dict(outcome.fitness) == {"parameters": 4}


def test_kan_is_held_against_linear_layers_of_the_same_widths() -> None:
    steps = {"task.points": 150, "task.test_points": 60, "task.quality_steps": 1, "task.fitness_steps": 2}
    given = {**steps, "funnel.objectives": ["memory", "rmse", "latency"], "funnel.quality_rmse": 50.0}
    space = kan(kan_settings(None, "fn:r1", None, "smoke", given))
    assert [(o.name, o.unit) for o in space.objectives] == [("rmse", ""), ("latency", "× MLP"), ("memory", "× MLP")]
    assert "MLP of equal widths" in dict(space.describe())["costs"]
    evaluator = KANEvaluator(space.settings, space.load_data(), "cpu")
    found = {}
    for name, genome in {"mlp": make("mlp", hidden=(8, 8)), "kan": make("bspline", {"grid": 5}, hidden=(8, 8))}.items():
        outcome = evaluator.run(Job(0, "fitness", to_json(genome), 7))
        assert list(outcome.fitness) == ["rmse", "latency", "memory"], outcome
        found[name] = outcome.fitness
    assert found["mlp"]["memory"] == 1
    assert 1 / 3 < found["mlp"]["latency"] < 3
    assert found["kan"]["memory"] > 3
    assert found["kan"]["latency"] > 1

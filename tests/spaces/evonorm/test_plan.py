"""How layers are run in a search: chosen once, the same for every job, and torch where a kernel cannot be built."""

import pytest
from torch import nn

from layersearch.errors import KernelError, RecipeError, UnknownNameError
from layersearch.primitives.lowering import LOWERINGS, available
from layersearch.primitives.lowering import c as c_lowering
from layersearch.spaces.contracts import Arrays, Job, JsonObject, Outcome
from layersearch.spaces.evonorm import evaluate, plan
from layersearch.spaces.evonorm.evaluate import KERNEL_FAILED, EvonormEvaluator
from layersearch.spaces.evonorm.plan import SWAP_STEPS, planned, swap_step_for
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.evonorm.settings import AUTO, effective
from layersearch.spaces.evonorm.space import from_settings

TINY = {
    "task.fitness_steps": 12,
    "task.quality_steps": 8,
    "task.batch": 8,
    "task.validation_cap": 50,
    "task.rerank_steps": 6,
    "funnel.quality_chance": 0.0,
    "funnel.early_step": 0,
    "funnel.stability_steps": 3,
}
needs_compiler = pytest.mark.skipif(available()["c"] is not None, reason=f"lowering c: {available()['c']}")


def settings(lowering: str, **overrides: object) -> JsonObject:
    return effective("b", "digits", None, "smoke", {**TINY, **overrides}, lowering=lowering)


@pytest.fixture(scope="module")
def data() -> Arrays:
    return from_settings(settings("torch")).load_data()


def run(
    data: Arrays, made: JsonObject, stage: str, checkpoint: bytes | None = None, layer: str = "evonorm-b0"
) -> Outcome:
    space = from_settings(made)
    genome = space.to_json(PUBLISHED[layer])
    return EvonormEvaluator(space.settings, data, "cpu").run(Job(0, stage, genome, seed=3, checkpoint=checkpoint))


class Spy:
    """Notes the lowering of every layer that is built, and of every swap."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self.swapped: list[str] = []
        spy = self

        class Layers(evaluate.SwappableLayers):
            def make(self, num_features: int) -> nn.Module:
                spy.made.append(self.lowering)
                return super().make(num_features)

            def swap(self, network: nn.Module, lowering: str) -> None:
                spy.swapped.append(lowering)
                super().swap(network, lowering)

        monkeypatch.setattr(evaluate, "SwappableLayers", Layers)


def test_a_build_pays_once_it_has_been_spared() -> None:
    assert swap_step_for(0.3, torch=0.2, compiled=0.1, steps=180) == SWAP_STEPS[0]
    assert swap_step_for(0.3, torch=0.04, compiled=0.01, steps=180) == SWAP_STEPS[1]
    assert swap_step_for(0.3, torch=0.003, compiled=0.001, steps=180) == SWAP_STEPS[-1]
    assert swap_step_for(0.3, torch=0.003, compiled=0.001, steps=100) is None
    assert swap_step_for(0.3, torch=0.1, compiled=0.1, steps=100) is None


@needs_compiler
@pytest.mark.parametrize(("faster", "name", "step"), [(True, "c", 8), (False, "torch", 0)])
def test_auto_takes_what_was_measured_to_be_faster(
    data: Arrays, monkeypatch: pytest.MonkeyPatch, faster: bool, name: str, step: int
) -> None:
    seconds = {"torch": 0.2, "c": 0.1 if faster else 0.3}
    monkeypatch.setattr(plan, "_seconds_per_step", lambda task, network, lowering: seconds[lowering])
    monkeypatch.setattr(plan, "_build_seconds", lambda row: 0.3)
    made = planned(settings(AUTO), data, "cpu")
    assert made["lowering"] == {"name": name, "swap_step": step}
    assert {k: v for k, v in made.items() if k != "lowering"} == {
        k: v for k, v in settings(AUTO).items() if k != "lowering"
    }
    assert planned(made, data, "cpu") == made


@needs_compiler
@pytest.mark.slow
def test_what_is_measured_is_time(data: Arrays) -> None:
    made = planned(settings(AUTO), data, "cpu")
    assert made["lowering"]["name"] in ("torch", "c")
    build_seconds = LOWERINGS["c"].build_seconds
    assert build_seconds is not None
    assert build_seconds(PUBLISHED["evonorm-b0"]) > 0.01


def test_a_lowering_that_cannot_be_used_here_is_refused(data: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="does not run on cuda"):
        planned(settings("c"), data, "cuda:0")
    with pytest.raises(RecipeError, match="unknown lowering 'fortran'"):
        settings("fortran")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RecipeError, match="lowering must be usable on cpu, got 'c'"):
        planned(settings("c"), data, "cpu")
    assert planned(settings(AUTO), data, "cpu")["lowering"]["name"] == "torch"


@needs_compiler
def test_the_first_network_is_compiled_from_the_planned_step_on(data: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    made = settings("c", **{"lowering.swap_step": 5})
    quality = run(data, made, "quality:resnet")
    assert quality.state == "passed", quality
    assert KERNEL_FAILED not in quality.metrics
    n_sites = len(spy.made) // 2
    assert spy.made == ["torch"] * n_sites + ["c"] * n_sites
    assert spy.swapped == ["c"]
    continued = run(data, made, "fitness:resnet", quality.checkpoint)
    assert set(spy.made[2 * n_sites :]) == {"c"}
    assert continued == run(data, made, "fitness:resnet"), "a training must not depend on where it is cut"
    spy.made.clear()
    run(data, made, "quality:mobilenetv2")
    assert set(spy.made) == {"c"}
    spy.made.clear()
    run(data, made, "stability:resnet")
    assert set(spy.made) == {"torch"}, "what is differentiated twice is not compiled"


@needs_compiler
def test_compiled_trainings_agree_with_torch(data: Arrays) -> None:
    compiled, plain = (run(data, settings(name), "fitness:efficientnet") for name in ("c", "torch"))
    assert compiled.metrics["train.efficientnet"] == pytest.approx(plain.metrics["train.efficientnet"], abs=0.04)


@needs_compiler
@pytest.mark.parametrize("swap_step", [0, 5])
def test_without_its_kernel_a_candidate_is_run_by_torch_and_says_so(
    data: Arrays, monkeypatch: pytest.MonkeyPatch, swap_step: int
) -> None:
    def broken(*_: object) -> None:
        raise KernelError("the compiler is out of order")

    plain = run(data, settings("torch"), "quality:resnet", layer="bn-silu")
    monkeypatch.setattr(c_lowering._FUSION, "kernel", broken)
    for mode in list(c_lowering._FUSION._modes.values()):
        vars(mode).pop("kernel", None)  # that another test has built
    made = settings("c", **{"lowering.swap_step": swap_step})
    outcome = run(data, made, "quality:resnet", layer="bn-silu")
    assert outcome.metrics == {**plain.metrics, KERNEL_FAILED: 1.0}


def test_unknown_lowerings_are_refused_with_near_misses() -> None:
    with pytest.raises((RecipeError, UnknownNameError), match="torch"):
        settings("torhc")

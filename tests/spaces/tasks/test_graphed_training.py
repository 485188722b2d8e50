"""Replayed steps train as steps run one by one do: to the bit, and with the same ends.

A stand-in for the CUDA graph runs again, on the CPU, what it was given: all but the launches is tested.
"""

import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from striped_images import striped_arrays, tiny_settings
from torch import Tensor, nn

from layersearch.primitives.lowering import build_layer
from layersearch.primitives.lowering.swap import SwappableLayers
from layersearch.spaces.evonorm.published import PUBLISHED
from layersearch.spaces.tasks.images import ImageTask, TrainResult
from layersearch.spaces.tasks.images.graphed import LEAST_GRAPHED, MOST_AHEAD
from layersearch.spaces.tasks.images.settings import ImageSettings, OptimizerName
from layersearch.spaces.tasks.images.step import TrainingStep, make_optimizer, update, update_on_device

STEPS = 70


class Rerun:
    """``StepGraph`` that runs what it captured."""

    captured = 0
    open = 0
    replayed: list[int]

    def __init__(self, error: str | None = None) -> None:
        self.error = error

    def capture(self, run: Callable[[], None], warm_up: Callable[[], None]) -> None:
        warm_up()
        if self.error is not None:
            raise RuntimeError(self.error)
        self.run = run
        Rerun.captured += 1
        Rerun.open += 1

    def replay(self, times: int) -> None:
        Rerun.replayed.append(times)
        for _ in range(times):
            self.run()

    def close(self) -> None:
        Rerun.open -= self.error is None


class Bomb(nn.Module):
    """Passes its input on until its ``at``-th call in a training, then overflows; counts where a snapshot reaches."""

    at = 40
    calls: Tensor

    def __init__(self, _: int) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * torch.where(self.calls >= self.at, torch.inf, 0.1)


def bn_relu(num_features: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(num_features), nn.ReLU())


def evonorm(num_features: int) -> nn.Module:
    return build_layer(PUBLISHED["evonorm-b0"], num_features, groups=8)


@pytest.fixture(scope="module")
def eager() -> ImageTask:
    return ImageTask(striped_arrays(), tiny_settings(batch=8, schedule="cosine"))


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> ImageTask:
    monkeypatch.setattr(Rerun, "captured", 0)
    monkeypatch.setattr(Rerun, "open", 0)
    monkeypatch.setattr(Rerun, "replayed", [], raising=False)
    task = ImageTask(striped_arrays(), tiny_settings(batch=8, schedule="cosine"))
    assert task.make_graph is None, "no graphs on the CPU"
    task.make_graph = Rerun
    return task


def both(
    eager: ImageTask,
    graphed: ImageTask,
    layer: Callable[[int], nn.Module] = bn_relu,
    network: str = "resnet",
    **given: Any,
) -> TrainResult:
    """The same training by both tasks; what can be seen of them must be equal."""
    results = []
    for task in (eager, graphed):
        asked: list[tuple[int, float, float]] = []
        model = task.build(network, layer, seed=1)
        settings = {"until_step": STEPS, "total_steps": STEPS, "seed": 5} | given
        if (rule := settings.get("on_step")) is not None:

            def on_step(*seen: Any, rule: Any = rule, asked: list[Any] = asked) -> str | None:
                asked.append(seen)
                return rule(*seen)  # type: ignore[no-any-return]

            settings["on_step"] = on_step
        result = task.train(model, **settings)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        results.append((result, result.checkpoint(), state, asked))
    (one, bytes_one, state_one, asked_one), (two, bytes_two, state_two, asked_two) = results
    assert one == two
    assert asked_one == asked_two
    assert all(torch.equal(state_one[name], tensor) for name, tensor in state_two.items())
    assert bytes_one == bytes_two
    assert Rerun.open == 0, "what was captured is given up"
    return two


@pytest.mark.parametrize("network", ["efficientnet", "mobilenetv2", "resnet"])
@pytest.mark.parametrize("layer", [bn_relu, evonorm])
def test_a_whole_training(eager: ImageTask, graphed: ImageTask, network: str, layer: Any) -> None:
    result = both(eager, graphed, layer, network, until_step=20, total_steps=30)
    assert (result.status, result.steps, result.graph_failure) == ("ok", 20, "")
    assert Rerun.captured == 1
    assert Rerun.replayed == [1, 2, 4, 8, 5], "the host looks ever more seldom"


def test_the_host_never_runs_too_far_ahead(eager: ImageTask, graphed: ImageTask) -> None:
    both(eager, graphed, until_step=STEPS + 30, total_steps=STEPS + 30)
    assert Rerun.replayed == [1, 2, 4, 8, 16, 32, 32, 5]
    assert max(Rerun.replayed) == MOST_AHEAD


@pytest.mark.parametrize("at", [1, 2, 40, STEPS])
def test_a_loss_that_is_not_finite(
    eager: ImageTask, graphed: ImageTask, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(Bomb, "at", at)
    result = both(eager, graphed, Bomb)
    assert (result.status, result.steps) == ("nonfinite", at - 1)
    assert result.reason == f"the loss is not finite at step {at}"


@pytest.mark.parametrize("at", [1, 31, 60])
def test_the_callback_ends_a_training_at_its_step(eager: ImageTask, graphed: ImageTask, at: int) -> None:
    result = both(eager, graphed, on_step=lambda step, _, accuracy: f"{accuracy}" if step == at else None)
    assert (result.status, result.steps, len(result.losses)) == ("stopped", at, at)
    assert float(result.reason) == result.accuracy


def test_the_deadline(eager: ImageTask, graphed: ImageTask) -> None:
    late = both(eager, graphed, deadline=time.monotonic())
    assert (late.status, late.steps, Rerun.captured) == ("timeout", 0, 0)


def test_a_deadline_is_met_between_looks(graphed: ImageTask, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    model = graphed.build("resnet", bn_relu, seed=1)
    result = graphed.train(model, until_step=STEPS, total_steps=STEPS, seed=5, deadline=4.0)
    assert (result.status, result.steps) == ("timeout", sum(Rerun.replayed))
    assert result.reason == f"the time limit was reached after {result.steps} steps"
    assert 0 < result.steps < STEPS


@pytest.mark.parametrize("order", ["eager-graphed", "graphed-eager", "graphed-graphed"])
def test_a_training_goes_on_from_the_checkpoint_of_the_other(eager: ImageTask, graphed: ImageTask, order: str) -> None:
    first, second = ({"eager": eager, "graphed": graphed}[name] for name in order.split("-"))
    whole = both(eager, graphed, until_step=20, total_steps=20)
    begun = first.train(first.build("resnet", bn_relu, seed=1), until_step=8, total_steps=20, seed=5)
    checkpoint = begun.checkpoint()
    other = second.build("resnet", bn_relu, seed=99)
    ended = second.train(other, until_step=20, total_steps=20, seed=5, checkpoint=checkpoint)
    assert Rerun.captured == 1 + order.count("graphed")
    assert ended.checkpoint() == whole.checkpoint()
    assert begun.losses + ended.losses == whole.losses
    assert ended.accuracy == whole.accuracy


def test_modules_are_changed_at_their_step_and_captured_again(eager: ImageTask, graphed: ImageTask) -> None:
    results = []
    for task in (eager, graphed):
        layers = SwappableLayers(PUBLISHED["evonorm-b0"], 8, "reference")
        model = task.build("resnet", layers.make, seed=1)
        made: list[int] = []

        def change(layers: Any = layers, model: Any = model, made: list[int] = made) -> None:
            made.append(len(list(model.modules())))
            layers.swap(model, "torch")

        result = task.train(model, until_step=12, total_steps=12, seed=5, changes={5: change, 12: change})
        assert layers.lowering == "torch"
        assert len(made) == 2
        results.append((result, result.checkpoint()))
    assert results[0] == results[1]
    assert Rerun.captured == 2
    assert Rerun.replayed == [1, 2, 2, 1, 2, 4]


def test_no_change_after_the_end(eager: ImageTask, graphed: ImageTask) -> None:
    def never() -> None:
        raise AssertionError("the training had ended")

    both(eager, graphed, on_step=lambda step, *_: "enough" if step == 5 else None, changes={5: never, 9: never})


@pytest.mark.parametrize("change", [None, 3])
def test_what_cannot_be_captured_is_run_one_by_one_from_where_it_was(
    eager: ImageTask, graphed: ImageTask, change: int | None
) -> None:
    """Nothing of the warm-up remains; a failure after a change of the model is one, too, and there is no third try."""
    tries: list[str] = []

    def make() -> Rerun:
        tries.append("")
        return Rerun("operation not permitted\nwhen capturing" if change is None or len(tries) > 1 else None)

    graphed.make_graph = make
    changes = {} if change is None else {change: lambda: None, change + 4: lambda: None}
    result = both(eager, graphed, until_step=12, total_steps=12, changes=changes)
    assert result.graph_failure == "RuntimeError: operation not permitted"
    assert len(tries) == (1 if change is None else 2)


def test_a_failed_capture_leaves_nothing_behind(
    eager: ImageTask, graphed: ImageTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even momentum, which the checkpoint of a training without a single step has not."""
    monkeypatch.setattr(Bomb, "at", 1)
    graphed.make_graph = lambda: Rerun("no")
    assert both(eager, graphed, Bomb).steps == 0


def test_graphs_can_be_declined(graphed: ImageTask) -> None:
    for given in ({"until_step": 9, "graphed": False}, {"until_step": LEAST_GRAPHED - 1}):
        result = graphed.train(graphed.build("resnet", bn_relu, 1), total_steps=9, seed=5, **given)
        assert (result.status, result.graph_failure) == ("ok", "")
    assert Rerun.captured == 0
    settings = tiny_settings(cuda_graphs=False)
    assert settings.fingerprint() == tiny_settings().fingerprint(), "results are the same, so are trainings"


def with_adamw(settings: ImageSettings) -> ImageSettings:
    class Recipe(ImageSettings):
        optimizer: ClassVar[OptimizerName] = "adamw"

    return Recipe.parse(settings.model_dump())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_forms_of_the_update_agree(optimizer: str) -> None:
    """The form for the GPU rounds in other places: some units in the last place apart."""
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 10)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[0][0].bias.requires_grad_(False)  # has no gradient and is left alone
    models[1][0].bias.requires_grad_(False)
    settings = tiny_settings(weight_decay=0.1)
    settings = settings if optimizer == "sgd" else with_adamw(settings)
    steps = [TrainingStep(model.train(), make_optimizer(model, settings)) for model in models]
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    for k in range(5):
        rate = torch.tensor(0.1 / (k + 1), dtype=torch.float64)
        for step, form in zip(steps, (update, update_on_device), strict=True):
            loss = nn.functional.cross_entropy(step.model(x), y)
            step.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            form(step.optimizer, rate)
    for ours, theirs in zip(*(step.state() for step in steps), strict=True):
        # The first steps of AdamW divide numbers near 0 by each other.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7 if optimizer == "sgd" else 1e-5)
    assert len(steps[0].momentum()) == len(steps[1].momentum()) == (3 if optimizer == "sgd" else 9)


def test_a_training_by_adamw_is_graphed_and_goes_on_from_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rerun, "replayed", [], raising=False)
    settings = with_adamw(tiny_settings(batch=8, schedule="cosine"))
    eager, graphed = (ImageTask(striped_arrays(), settings) for _ in range(2))
    graphed.make_graph = Rerun
    whole = both(eager, graphed, until_step=20, total_steps=20)
    assert whole.losses[-1] < whole.losses[0]
    first = eager.build("resnet", bn_relu, 1)
    checkpoint = eager.train(first, until_step=9, total_steps=20, seed=5).checkpoint()
    second = graphed.build("resnet", bn_relu, 2)
    rest = graphed.train(second, until_step=20, total_steps=20, seed=5, checkpoint=checkpoint)
    assert rest.checkpoint() == whole.checkpoint()
    plain = ImageTask(striped_arrays(), tiny_settings(batch=8, schedule="cosine"))
    by_sgd = plain.train(plain.build("resnet", bn_relu, 1), until_step=1, total_steps=20, seed=5)
    assert len(by_sgd.checkpoint()) < len(checkpoint)


def test_a_model_says_what_is_not_decayed() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def no_weight_decay(self) -> set[str]:
            return {"last.weight"}

    for settings in (tiny_settings(weight_decay=0.5), with_adamw(tiny_settings(weight_decay=0.5))):
        model = Model()
        groups = make_optimizer(model, settings).param_groups
        assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
        assert groups[0]["params"] == [model.first.weight]
        assert len(groups[1]["params"]) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layer", [bn_relu, evonorm])
def test_a_gpu_replays_the_steps_it_would_run_one_by_one(layer: Any) -> None:
    torch.backends.cudnn.deterministic = True
    task = ImageTask(striped_arrays(), tiny_settings(), "cuda")
    results = []
    for graphed in (False, True):
        model = task.build("resnet", layer, seed=1)
        result = task.train(model, until_step=STEPS, total_steps=STEPS, seed=5, graphed=graphed)
        results.append((result, result.checkpoint()))
    assert results[1][0].graph_failure == ""
    assert results[0] == results[1]

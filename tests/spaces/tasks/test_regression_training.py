"""Training on a target: cut into rungs without a trace, ended with a reason, judged on the part that was asked for."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layersearch.errors import DataError, StoreError
from layersearch.primitives import KANLinear
from layersearch.primitives.layers.selective import SelectiveKANLinear
from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.functions import Sampling
from layersearch.spaces.tasks.regression import RegressionSettings, RegressionTask, load_regression, preset, to_arrays
from layersearch.spaces.tasks.regression.training import optimizer_of


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return to_arrays(load_regression("fn:r1", None, Sampling(points=150, test_points=60)))


def settings(**changes: Any) -> RegressionSettings:
    return preset("smoke", "fn:r1").replace(
        points=150, test_points=60, quality_steps=3, fitness_steps=9, rerank_steps=9, **changes
    )


def network(seed: int = 0) -> nn.Module:
    """With a running range, which is state beside the parameters."""
    g = torch.Generator().manual_seed(seed)
    return nn.Sequential(
        KANLinear(2, 5, "bspline", domain="minmax", generator=g), KANLinear(5, 1, "chebyshev", generator=g)
    )


RECIPES: list[dict[str, Any]] = [
    {},
    {"batch": 16, "schedule": "constant"},
    {"optimizer": "adamw", "weight_decay": 0.1, "batch": 32},
    {"optimizer": "lbfgs", "learning_rate": 1.0},
    {"dtype": "float64"},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: ",".join(map(str, r.values())) or "default")
def test_a_training_in_rungs_equals_one_in_a_piece(arrays: Arrays, recipe: dict[str, Any]) -> None:
    task = RegressionTask(arrays, settings(**recipe))
    whole = network(1).to(task.dtype)
    at_once = task.train(whole, until_step=9, total_steps=9, seed=5)
    checkpoint, losses = None, []
    for until_step in (3, 4, 9):
        model = network(99 if checkpoint else 1).to(task.dtype)  # other weights: all must come from the checkpoint
        rung = task.train(model, until_step=until_step, total_steps=9, seed=5, checkpoint=checkpoint)
        checkpoint = rung.checkpoint()
        losses += rung.losses
    assert rung.steps == at_once.steps == 9
    assert tuple(losses) == at_once.losses
    assert checkpoint == at_once.checkpoint()
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), whole.state_dict().values(), strict=True))


def test_seeds_decide_the_order_of_the_data_alone(arrays: Arrays) -> None:
    task = RegressionTask(arrays, settings(batch=16))

    def losses(seed: int) -> tuple[float, ...]:
        return task.train(network(), until_step=4, total_steps=9, seed=seed).losses

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)
    x = torch.cat([task.batch(1, step)[0] for step in range(len(task.parts.train) // 16)])
    assert len(torch.unique(x, dim=0)) == len(x)  # an epoch has no row twice


def test_no_global_generator_moves(arrays: Arrays) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    task = RegressionTask(arrays, settings(batch=16))
    task.train(network(), until_step=1, total_steps=1, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index,arg-type]


def test_a_network_learns_and_parts_differ(arrays: Arrays) -> None:
    task = RegressionTask(arrays, settings(optimizer="lbfgs", learning_rate=1.0))
    model = network()
    result = task.train(model, until_step=40, total_steps=40, seed=0)
    assert result.status == "ok"
    found = {part: task.evaluate(model, part) for part in ("train", "validation", "holdout", "test")}  # type: ignore[arg-type]
    assert [found[part].n_rows for part in found] == [90, 30, 30, 60]
    values = [found[part].normalised for part in found]
    assert all(value is not None and value < 0.5 for value in values)
    assert len(set(values)) == 4
    for evaluation in found.values():
        assert evaluation.rmse == pytest.approx(evaluation.normalised * task.target_std)
    assert model.training


def test_the_mean_of_the_target_has_error_one(arrays: Arrays) -> None:
    task = RegressionTask(arrays, settings())
    zero = KANLinear(2, 1)
    for parameter in zero.parameters():
        nn.init.zeros_(parameter)
    assert task.evaluate(zero, "train").normalised == pytest.approx(1.0, abs=1e-5)


def test_gates_are_not_decayed() -> None:
    """The order of parameters is that of the model: by it checkpoints, older ones too, tell them apart."""
    model = nn.Sequential(SelectiveKANLinear(2, 3), SelectiveKANLinear(3, 1))
    optimizer = optimizer_of(model, settings(optimizer="adamw", weight_decay=0.5, learning_rate=0.1))
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert all(own is other for own, other in zip(grouped, model.parameters(), strict=True))
    for parameter in grouped:
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = 1.0 if name.endswith("gates.logits") else 0.95
        assert torch.equal(parameter, torch.full_like(parameter, expected)), name


def test_what_decays_throughout_has_one_group() -> None:
    groups = optimizer_of(network(), settings(optimizer="adamw", weight_decay=0.5)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5]


class _Blowing(nn.Module):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls = at, 0
        self.weight = nn.Parameter(torch.zeros(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x @ self.weight * (float("inf") if self.calls >= self.at else 1.0)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_loss_that_is_not_finite_ends_the_training(arrays: Arrays, optimizer: str) -> None:
    task = RegressionTask(arrays, settings(optimizer=optimizer))
    result = task.train(_Blowing(1), until_step=9, total_steps=9, seed=0)
    assert (result.status, result.steps, result.losses) == ("nonfinite", 0, ())
    assert "step 1" in result.reason


def test_the_step_of_a_bad_loss_is_not_made(arrays: Arrays) -> None:
    task = RegressionTask(arrays, settings())
    model = _Blowing(4)
    result = task.train(model, until_step=9, total_steps=9, seed=0)
    assert (result.status, result.steps) == ("nonfinite", 3)
    assert bool(model.weight.isfinite().all())
    assert task.evaluate(model, "validation").normalised is None


def test_the_deadline_ends_the_training(arrays: Arrays) -> None:
    task = RegressionTask(arrays, settings())
    result = task.train(network(), until_step=9, total_steps=9, seed=0, deadline=time.monotonic() - 1)
    assert (result.status, result.steps) == ("timeout", 0)


def test_a_checkpoint_is_continued_as_it_was_begun_only(arrays: Arrays) -> None:
    task = RegressionTask(arrays, settings())
    checkpoint = task.train(network(), until_step=2, total_steps=9, seed=5).checkpoint()

    def go_on(task: RegressionTask = task, model: nn.Module | None = None, **changes: Any) -> None:
        given = {"until_step": 9, "total_steps": 9, "seed": 5, "checkpoint": checkpoint} | changes
        task.train(model or network(), **given)

    go_on()
    for changes in ({"seed": 6}, {"total_steps": 10}, {"checkpoint": checkpoint[:-9]}, {"checkpoint": b"x" * 40}):
        with pytest.raises(StoreError) as caught:
            go_on(**changes)
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="settings"):
        go_on(RegressionTask(arrays, settings(batch=8)))
    with pytest.raises(StoreError, match="of the model"):
        go_on(model=nn.Sequential(KANLinear(2, 6), KANLinear(6, 1)))


def test_arrays_of_another_set_are_refused(arrays: Arrays) -> None:
    with pytest.raises(DataError, match="must be those of 'fn:r2'"):
        RegressionTask(arrays, settings(data="fn:r2"))

"""Training is cut into rungs without a trace, ends with a reason, and moves no global generator."""

import math
import time

import numpy as np
import pytest
import torch
from striped_images import striped_arrays, tiny_settings
from torch import Tensor, nn

from layersearch.errors import DataError, RecipeError, StoreError
from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.images import ImageTask


def bn_relu(num_features: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(num_features), nn.ReLU())


class _Blowing(nn.Module):
    """Passes its input on until its ``at``-th call, then overflows."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.at, self.calls = 4, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (float("inf") if self.calls >= self.at else 0.1)


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return striped_arrays()


@pytest.fixture(scope="module")
def task(arrays: Arrays) -> ImageTask:
    return ImageTask(arrays, tiny_settings())


def _everything(model: nn.Module, checkpoint: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return {**{f"live/{name}": t for name, t in model.state_dict().items()}, **load(checkpoint)}


@pytest.mark.parametrize("network", ["efficientnet", "mobilenetv2", "resnet"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_training_in_rungs_equals_one_in_a_piece(arrays: Arrays, network: str, schedule: str) -> None:
    task = ImageTask(arrays, tiny_settings(schedule=schedule))
    whole = task.build(network, bn_relu, seed=1)
    at_once = task.train(whole, until_step=9, total_steps=9, seed=5)
    checkpoint, losses = None, []
    for until_step in (3, 4, 9):  # nine steps are most of an epoch of eight: the boundary is crossed
        model = task.build(network, bn_relu, seed=99)  # other weights: all must come from the checkpoint
        if checkpoint is None:
            model = task.build(network, bn_relu, seed=1)
        rung = task.train(model, until_step=until_step, total_steps=9, seed=5, checkpoint=checkpoint)
        checkpoint = rung.checkpoint()
        losses += rung.losses
    assert rung.steps == at_once.steps == 9
    assert tuple(losses) == at_once.losses
    assert rung.accuracy == at_once.accuracy
    assert checkpoint is not None
    ours, theirs = _everything(model, checkpoint), _everything(whole, at_once.checkpoint())
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("momentum/") for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_seeds_decide(task: ImageTask) -> None:
    def losses(init: int, data: int) -> tuple[float, ...]:
        return task.train(task.build("resnet", bn_relu, init), until_step=2, total_steps=2, seed=data).losses

    assert losses(1, 2) == losses(1, 2)
    assert losses(1, 2) != losses(1, 3)
    assert losses(1, 2) != losses(2, 2)


def test_no_global_generator_moves(task: ImageTask) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    model = task.build("efficientnet", bn_relu, seed=3)
    task.train(model, until_step=1, total_steps=1, seed=3)
    task.evaluate(model, "validation")
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index,arg-type]


def test_a_layer_learns_and_is_judged_on_running_buffers(task: ImageTask) -> None:
    model = task.build("resnet", bn_relu, seed=0)
    result = task.train(model, until_step=60, total_steps=60, seed=0)
    assert result.status == "ok"
    assert result.losses[-1] < result.losses[0] / 2
    assert result.accuracy > 0.8
    scores = {part: task.evaluate(model, part) for part in ("validation", "holdout", "test")}  # type: ignore[arg-type]
    assert all(score.finite and score.accuracy is not None and score.accuracy > 0.6 for score in scores.values())
    assert [score.n_images for score in scores.values()] == [40, 30, 40]
    assert task.evaluate(model, "validation", limit=10).n_images == 10
    bn = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert model.training
    bn.running_var.mul_(1e6)  # type: ignore[union-attr]
    assert task.evaluate(model, "validation").accuracy != scores["validation"].accuracy


def test_a_loss_that_is_not_finite_ends_the_training(task: ImageTask) -> None:
    n_sites = 5
    model = task.build("resnet", _Blowing, seed=0)
    assert sum(isinstance(module, _Blowing) for module in model.modules()) == n_sites
    result = task.train(model, until_step=9, total_steps=9, seed=0)
    assert (result.status, result.steps, len(result.losses)) == ("nonfinite", 3, 3)
    assert result.reason == "the loss is not finite at step 4"
    assert all(map(math.isfinite, result.losses))
    score = task.evaluate(model, "validation")
    assert (score.finite, score.accuracy) == (False, None)


def test_the_deadline_and_the_callback_end_the_training(task: ImageTask) -> None:
    model = task.build("resnet", bn_relu, seed=0)
    late = task.train(model, until_step=9, total_steps=9, seed=0, deadline=time.monotonic())
    assert (late.status, late.steps, late.reason) == ("timeout", 0, "the time limit was reached after 0 steps")
    seen: list[tuple[int, float, float]] = []

    def on_step(step: int, loss: float, accuracy: float) -> str | None:
        seen.append((step, loss, accuracy))
        return "hopeless" if step == 2 else None

    stopped = task.train(model, until_step=9, total_steps=9, seed=0, on_step=on_step)
    assert (stopped.status, stopped.reason, stopped.steps) == ("stopped", "hopeless", 2)
    assert [step for step, _, _ in seen] == [1, 2]
    assert seen[1][1:] == (stopped.losses[1], stopped.accuracy)


def test_checkpoints_that_do_not_fit_are_refused(arrays: Arrays, task: ImageTask) -> None:
    model = task.build("resnet", bn_relu, seed=0)
    checkpoint = task.train(model, until_step=1, total_steps=9, seed=0).checkpoint()

    def resume(task: ImageTask, model: nn.Module, data: bytes, total_steps: int = 9, seed: int = 0) -> None:
        task.train(model, until_step=2, total_steps=total_steps, seed=seed, checkpoint=data)

    with pytest.raises(StoreError, match="only one has"):
        resume(task, task.build("mobilenetv2", bn_relu, seed=0), checkpoint)
    with pytest.raises(StoreError, match=r"must be \[\d+.*\] torch.float32, got"):
        resume(task, task.build("resnet", bn_relu, seed=0, width=10.0), checkpoint)
    with pytest.raises(StoreError, match="its own total_steps 9, got 8"):
        resume(task, model, checkpoint, total_steps=8)
    with pytest.raises(StoreError, match="its own seed 0, got 1"):
        resume(task, model, checkpoint, seed=1)
    with pytest.raises(StoreError, match="its own settings"):
        resume(ImageTask(arrays, tiny_settings(learning_rate=0.5)), model, checkpoint)
    for broken in (b"", b"no", checkpoint[:40], checkpoint[:-1], checkpoint.replace(b"progress", b"pRogress", 1)):
        with pytest.raises(StoreError, match="cannot be read"):
            resume(task, model, broken)


def test_vectors_are_not_decayed(arrays: Arrays) -> None:
    class Still(nn.Module):
        def __init__(self, num_features: int) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1, num_features, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gain

    def after_one_step(weight_decay: float) -> dict[str, Tensor]:
        task = ImageTask(arrays, tiny_settings(weight_decay=weight_decay))
        model = task.build("resnet", Still, seed=0)
        task.train(model, until_step=1, total_steps=1, seed=0)
        return dict(model.named_parameters())

    plain, decayed = after_one_step(0.0), after_one_step(0.5)
    for name, value in plain.items():
        is_vector = "gain" in name or name.endswith("bias")
        assert torch.equal(value, decayed[name]) == is_vector, name


def test_batches_are_normalised_channels_last_and_of_the_training_part(arrays: Arrays, task: ImageTask) -> None:
    x, y = task.batch(seed=0, step=0)
    assert x.shape == (16, 1, 16, 16)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    rows = torch.from_numpy(task.parts.train)
    whole, _ = task._published_train.whole(rows, 16)
    assert abs(whole.mean()) < 1e-3
    assert abs(whole.std() - 1) < 1e-3
    plain = ImageTask(arrays, tiny_settings(padding=0))
    seen = torch.cat([plain.batch(0, step)[0] for step in range(8)])  # 8 x 16 of 130 rows: one epoch, none twice
    known = {image.numpy().tobytes() for image in whole}
    assert {image.numpy().tobytes() for image in seen} <= known
    assert len({image.numpy().tobytes() for image in seen}) == 128


def test_crops_are_cut_padded_and_mirrored_as_asked(task: ImageTask) -> None:
    images = task._published_train
    rows = torch.tensor([0, 1])
    whole, labels = images.whole(rows, 16)
    black = images._normalised(torch.zeros(1, 1, 1, 1, dtype=torch.uint8)).item()
    x, y = images.crops(rows, torch.tensor([2, -1]), torch.tensor([3, 0]), 12, torch.tensor([False, True]))
    assert torch.equal(y, labels)
    assert torch.equal(x[0], whole[0, :, 2:14, 3:15])
    assert torch.equal(x[1, :, 1:], whole[1, :, 0:11, 0:12].flip(-1))
    assert bool((x[1, :, 0] == black).all())


def test_arrays_of_another_set_or_size_are_refused(arrays: Arrays) -> None:
    with pytest.raises(DataError, match="must be those of 'digits', got 'mnist'"):
        ImageTask({**arrays, "name": np.frombuffer(b"mnist", np.uint8)}, tiny_settings())
    with pytest.raises(DataError, match="16x16 after shrinking, got 8x8"):
        ImageTask({**arrays, "train_x": arrays["train_x"][..., ::2, ::2]}, tiny_settings())
    with pytest.raises(DataError, match="batch must be at most the 130 training images, got 131"):
        ImageTask(arrays, tiny_settings(batch=131)).batch(0, 0)
    with pytest.raises(RecipeError, match="must be one of the anchors"):
        ImageTask(arrays, tiny_settings()).build("resnet50", bn_relu, 0)


def test_read_only_arrays_are_used_without_a_copy_or_a_warning(
    arrays: Arrays, recwarn: pytest.WarningsRecorder
) -> None:
    frozen = {name: array.view() for name, array in arrays.items()}
    for array in frozen.values():
        array.flags.writeable = False
    task = ImageTask(frozen, tiny_settings())
    assert task._published_train.pixels.data_ptr() == arrays["train_x"].ctypes.data
    assert not recwarn.list


def test_each_epoch_has_its_own_order_and_each_step_its_own_crops(arrays: Arrays) -> None:
    task = ImageTask(arrays, tiny_settings(padding=0))
    first, second = (torch.cat([task.batch(0, 8 * epoch + i)[0] for i in range(8)]) for epoch in (0, 1))
    assert not torch.equal(first, second)
    black = tiny_settings(padding=3)
    white = {**arrays, "train_x": np.full_like(arrays["train_x"], 255)}
    shifts = [ImageTask(white, black).batch(0, step)[0] for step in (0, 1)]  # only the black frame tells them apart
    assert not torch.equal(*shifts)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_the_same_training(arrays: Arrays) -> None:
    def run(device: str) -> tuple[tuple[float, ...], int]:
        task = ImageTask(arrays, tiny_settings(), device)
        model = task.build("resnet", bn_relu, seed=0)
        result = task.train(model, until_step=3, total_steps=9, seed=0)
        resumed = task.train(model, until_step=5, total_steps=9, seed=0, checkpoint=result.checkpoint())
        return result.losses + resumed.losses, task.evaluate(model, "test").n_images

    (on_gpu, n_gpu), (on_cpu, n_cpu) = run("cuda"), run("cpu")
    assert on_gpu == pytest.approx(on_cpu, rel=1e-2)
    assert n_gpu == n_cpu == 40


def test_images_of_a_part_are_those_that_are_evaluated(task: ImageTask) -> None:
    model = task.build("resnet", bn_relu, seed=0).eval()
    for part in ("validation", "test"):
        x, y = task.images(part, 10)
        with torch.no_grad():
            right = float((model(x).argmax(1) == y).double().mean())
        assert task.evaluate(model, part, 10).accuracy == right

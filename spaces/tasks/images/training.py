"""Trains and evaluates anchor networks on one data set: the image task of a worker.

A training depends on its seed, settings and horizon alone, never on the rungs it is cut into: 0 -> 100 -> 300 equals
0 -> 300 bit for bit on the same hardware.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layersearch.errors import DataError, StoreError
from layersearch.primitives.seeds import Seeds
from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.images.batches import Images, channel_moments, shrunk, training_batch
from layersearch.spaces.tasks.images.checkpoint import Progress, read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.images.data import from_arrays
from layersearch.spaces.tasks.images.networks import NETWORKS, Layer
from layersearch.spaces.tasks.images.settings import ImageSettings
from layersearch.spaces.tasks.images.splits import split

__all__ = ["Evaluation", "ImageTask", "OnStep", "Part", "TrainResult"]

RECENT = 10  # batches in the running training accuracy

Part = Literal["validation", "holdout", "test"]
OnStep = Callable[[int, float, float], str | None]
"""``(steps done, loss, running training accuracy) -> reason to stop, or None``."""


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Args:
        steps: steps done since the very beginning.
        status: ``ok`` reached its goal; ``nonfinite`` met a loss that is not finite; ``timeout`` passed the deadline;
            ``stopped`` was ended by ``on_step``.
        reason: one sentence unless ``ok``.
        losses: mean cross-entropy of each batch of this call, in nats.
        accuracy: fraction of right answers in the last 10 training batches, earlier calls included.
    """

    steps: int
    status: Literal["ok", "nonfinite", "timeout", "stopped"]
    reason: str
    losses: tuple[float, ...]
    accuracy: float
    _capture: Callable[[], bytes] = field(repr=False, compare=False)

    def checkpoint(self) -> bytes:
        """The state to continue from; to be taken before the model is trained on or changed."""
        return self._capture()


@dataclass(frozen=True)
class Evaluation:
    """``accuracy`` is None when a logit was not finite: such a model has no accuracy, not a bad one."""

    accuracy: float | None
    finite: bool
    n_images: int


class ImageTask:
    """Data, parts and recipe of one run, held once per worker.

    Args:
        arrays: of ``to_arrays``; not copied on the CPU unless the settings shrink the images.
        settings: the recipe.
        device: where images lie and networks train.
    Raises: DataError if the arrays do not fit the settings.
    """

    def __init__(self, arrays: Arrays, settings: ImageSettings, device: str | torch.device = "cpu") -> None:
        data = from_arrays(arrays)
        if data.name != settings.data:
            raise DataError(f"the arrays must be those of '{settings.data}', got '{data.name}'; load that data set")
        self.settings = settings
        self.device = torch.device(device)
        self.classes = data.classes
        self.in_channels = int(data.train_x.shape[1])
        self.parts = split(
            data.train_y,
            len(data.test_y),
            validation=settings.validation_fraction,
            holdout=settings.holdout_fraction,
            seed=settings.split_seed,
        )
        train_x, test_x = (shrunk(pixels, settings.shrink) for pixels in (data.train_x, data.test_x))
        if train_x.shape[2:] != (settings.image_size, settings.image_size):
            raise DataError(
                f"images must be {settings.image_size}x{settings.image_size} after shrinking, "
                f"got {train_x.shape[2]}x{train_x.shape[3]}; correct image_size or shrink"
            )
        mean, std = channel_moments(train_x, self.parts.train)
        self._published_train = Images(train_x, data.train_y, mean, std, self.device)
        self._published_test = Images(test_x, data.test_y, mean, std, self.device)

    def build(self, network: str, layer: Layer, seed: int, *, width: float = 1.0) -> nn.Module:
        """An anchor network on the device with ``layer`` at every site; ``width`` multiplies that of its settings.

        The initial weights depend on ``seed`` alone, and no global generator moves.
        """
        size = self.settings.anchor(network)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(Seeds(seed).derive("init", network))
            model = NETWORKS[network](
                layer,
                in_channels=self.in_channels,
                classes=self.classes,
                image_size=self.settings.crop,
                width=size.width * width,
                depth=size.depth,
            )
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """The training batch of ``step`` (from 0): float32 ``[B, C, H, W]``, int64 ``[B]``."""
        return training_batch(self._published_train, self.parts.train, self.settings, seed, step)

    def fixed_batch(self, count: int) -> tuple[Tensor, Tensor]:
        """The first ``count`` training images (already in random order), centred crops: the same in every run."""
        rows = torch.from_numpy(self.parts.train[:count])
        return self._published_train.whole(rows, min(self.settings.crop, self.settings.image_size))

    def train(
        self,
        model: nn.Module,
        *,
        until_step: int,
        total_steps: int,
        seed: int,
        checkpoint: bytes | None = None,
        deadline: float | None = None,
        on_step: OnStep | None = None,
    ) -> TrainResult:
        """SGD with Nesterov momentum from the checkpoint (or step 0) to ``until_step``.

        Args:
            until_step, total_steps: goal of this call, and horizon of the learning rate.
            seed: of the order and augmentation of the data.
            deadline: on the clock of ``time.monotonic``, seconds; looked at before each step.
            on_step: called after each step; a reason returned ends the training.
        Raises: StoreError if the checkpoint does not fit the model, the seed, the horizon or the settings.
        """
        if not 0 < until_step <= total_steps:
            raise ValueError(f"until_step must be in 1..total_steps = {total_steps}, got {until_step}")
        settings = self.settings
        optimizer = _optimizer(model, settings)
        recent: deque[float] = deque(maxlen=RECENT)
        step = 0
        if checkpoint is not None:
            progress = read_checkpoint(checkpoint, model, optimizer)
            _check_same_training(progress, total_steps, seed, settings)
            step = progress.step
            recent.extend(progress.recent)
        losses: list[float] = []

        def result(status: Literal["ok", "nonfinite", "timeout", "stopped"], reason: str = "") -> TrainResult:
            now = Progress(step, total_steps, seed, settings.fingerprint(), tuple(recent))
            accuracy = sum(recent) / len(recent) if recent else 0.0
            capture = lambda: write_checkpoint(model, optimizer, now)  # noqa: E731
            return TrainResult(step, status, reason, tuple(losses), accuracy, capture)

        model.train()
        while step < until_step:
            if deadline is not None and time.monotonic() >= deadline:
                return result("timeout", f"the time limit was reached after {step} steps")
            x, y = self.batch(seed, step)
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            right = (logits.detach().argmax(1) == y).sum()
            loss_value, n_right = torch.stack([loss.detach(), right.to(loss.dtype)]).tolist()  # one wait for the device
            if not math.isfinite(loss_value):
                return result("nonfinite", f"the loss is not finite at step {step + 1}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate_at(step, total_steps)
            optimizer.step()
            step += 1
            losses.append(loss_value)
            recent.append(n_right / len(y))
            if on_step is not None and (why := on_step(step, loss_value, sum(recent) / len(recent))):
                return result("stopped", why)
        return result("ok")

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part, limit: int | None = None) -> Evaluation:
        """Accuracy in eval mode (running buffers) on the first ``limit`` images of a part, in its random order."""
        images = self._published_test if part == "test" else self._published_train
        rows = torch.from_numpy(getattr(self.parts, part)[:limit])
        was_training = model.training
        model.eval()
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for some in torch.split(rows, self.settings.eval_batch):
            x, y = images.whole(some, self.settings.eval_size)
            logits = model(x)
            right += (logits.argmax(1) == y).sum()
            finite &= logits.isfinite().all()
        model.train(was_training)
        is_finite = bool(finite.item())
        return Evaluation(right.item() / len(rows) if is_finite else None, is_finite, len(rows))


def _optimizer(model: nn.Module, settings: ImageSettings) -> torch.optim.SGD:
    """Vectors - biases and the parameters of a layer, in whatever shape they broadcast - are not decayed."""
    weights: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in model.parameters():
        (weights if sum(side > 1 for side in parameter.shape) > 1 else vectors).append(parameter)
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=True)


def _check_same_training(progress: Progress, total_steps: int, seed: int, settings: ImageSettings) -> None:
    for name, saved, given in (
        ("total_steps", progress.total_steps, total_steps),
        ("seed", progress.seed, seed),
        ("settings", progress.settings, settings.fingerprint()),
    ):
        if saved != given:
            raise StoreError(f"a checkpoint must be continued with its own {name} {saved}, got {given}; use that one")

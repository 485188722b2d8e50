"""Trains and evaluates any classifier of images on one data set: what a worker of such a task holds.

A training depends on its seed, settings and horizon alone, never on the rungs it is cut into: 0 -> 100 -> 300 equals
0 -> 300 bit for bit on the same hardware.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from layersearch.errors import DataError
from layersearch.spaces.contracts import Arrays
from layersearch.spaces.tasks.checkpoint import check_same_training
from layersearch.spaces.tasks.images.batches import Images, channel_moments, drawn, shrunk, training_batch
from layersearch.spaces.tasks.images.checkpoint import Progress, read_checkpoint, write_checkpoint
from layersearch.spaces.tasks.images.course import ImageCourse, OnStep, TrainResult
from layersearch.spaces.tasks.images.cuda_graph import CudaGraph, StepGraph
from layersearch.spaces.tasks.images.data import from_arrays
from layersearch.spaces.tasks.images.graphed import LEAST_GRAPHED, Feed, run_graphed
from layersearch.spaces.tasks.images.settings import ImageRecipe
from layersearch.spaces.tasks.images.splits import split
from layersearch.spaces.tasks.images.step import TrainingStep, make_optimizer

__all__ = ["ClassifierTask", "Evaluation", "OnStep", "Part", "TrainResult"]

Part = Literal["validation", "holdout", "test"]


@dataclass(frozen=True)
class Evaluation:
    """``accuracy`` is None when a logit was not finite: such a model has no accuracy, not a bad one."""

    accuracy: float | None
    finite: bool
    n_images: int


class ClassifierTask:
    """Data, parts and recipe of one run, held once per worker.

    Args:
        arrays: of ``to_arrays``; not copied on the CPU unless the settings shrink the images.
        settings: the recipe.
        device: where images lie and networks train; one task may train several networks there, each in its thread.
    Raises: DataError if the arrays do not fit the settings.
    """

    def __init__(self, arrays: Arrays, settings: ImageRecipe, device: str | torch.device = "cpu") -> None:
        data = from_arrays(arrays)
        if data.name != settings.data:
            raise DataError(f"the arrays must be those of '{settings.data}', got '{data.name}'; load that data set")
        self.settings = settings
        self.device = torch.device(device)
        self.make_graph: Callable[[], StepGraph] | None = None
        """What captures the steps of a training; None if they are run one by one."""
        if self.device.type == "cuda" and settings.cuda_graphs:
            self.make_graph = lambda: CudaGraph(self.device)
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
        self.mean, self.std = mean, std = channel_moments(train_x, self.parts.train)
        self._published_train = Images(train_x, data.train_y, mean, std, self.device)
        self._published_test = Images(test_x, data.test_y, mean, std, self.device)

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
        changes: Mapping[int, Callable[[], None]] | None = None,
        before_step: Callable[[int], None] | None = None,
        graphed: bool = True,
    ) -> TrainResult:
        """By the optimiser of the recipe from the checkpoint (or step 0) to ``until_step``.

        On a GPU the step is captured as a CUDA graph, if it can be and there are some to do: same results, less time.

        Args:
            until_step, total_steps: goal of this call, and horizon of the learning rate.
            seed: of the order and augmentation of the data.
            deadline: on the clock of ``time.monotonic``, seconds; looked at before each step, or before each few steps
                of a graph.
            on_step: called for each step in order, when its numbers are known: in a graph, some steps late. A reason
                returned ends the training after that step.
            changes: called after that many steps; each may put other modules into the model, with the same parameters.
            before_step: called with the number of steps done, for a model that changes with it; such steps are run one
                by one.
            graphed: False for steps that are run one by one.
        Raises: StoreError if the checkpoint does not fit the model, the seed, the horizon or the settings.
        """
        if not 0 < until_step <= total_steps:
            raise ValueError(f"until_step must be in 1..total_steps = {total_steps}, got {until_step}")
        settings = self.settings
        optimizer = make_optimizer(model, settings)
        before = 0
        recent: tuple[float, ...] = ()
        if checkpoint is not None:
            progress = read_checkpoint(checkpoint, model, optimizer)
            check_same_training(progress, total_steps, seed, settings.fingerprint())
            before, recent = progress.step, progress.recent
        course = ImageCourse(before, recent, until_step, deadline, on_step, changes)
        step = TrainingStep(model.train(), optimizer)
        feed = Feed(
            lambda i: drawn(self.parts.train, settings, seed, i),
            lambda draw: self._published_train.drawn(draw, settings.crop),
            lambda i: settings.learning_rate_at(i, total_steps),
            settings.batch,
        )
        graph_failure = ""
        if self.make_graph is not None and graphed and before_step is None and until_step - before >= LEAST_GRAPHED:
            graph_failure = run_graphed(course, step, feed, self.device, self.make_graph)
        _run_one_by_one(course, step, feed, self.device, before_step)
        now = Progress(course.step, total_steps, seed, settings.fingerprint(), tuple(course.recent))
        return TrainResult(
            course.step,
            course.status,
            course.reason,
            tuple(course.losses),
            lambda: write_checkpoint(model, optimizer, now),
            course.accuracy,
            graph_failure,
        )

    def images(self, part: Part, count: int) -> tuple[Tensor, Tensor]:
        """The first ``count`` images of a part (in its random order) as they are evaluated on, and their labels."""
        images, rows = self._of(part, count)
        return images.whole(rows, self.settings.eval_size)

    def _of(self, part: Part, limit: int | None) -> tuple[Images, Tensor]:
        images = self._published_test if part == "test" else self._published_train
        return images, torch.from_numpy(getattr(self.parts, part)[:limit])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part, limit: int | None = None) -> Evaluation:
        """Accuracy in eval mode (running buffers) on the first ``limit`` images of a part, in its random order."""
        images, rows = self._of(part, limit)
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


def _run_one_by_one(
    course: ImageCourse, step: TrainingStep, feed: Feed, device: torch.device, before_step: Callable[[int], None] | None
) -> None:
    """Runs ``course`` to its end."""
    while course.goes_on():
        if before_step is not None:
            before_step(course.step)
        x, y = feed.batch(feed.draw(course.step).to(device))
        loss, n_right = step.look(x, y).tolist()  # the one wait for the device
        if not course.accepts(loss):
            return
        step.learn(torch.full((), feed.rate(course.step), dtype=torch.float64, device=device))
        course.takes(loss, n_right / feed.batch_size)

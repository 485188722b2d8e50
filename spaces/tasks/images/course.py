"""Where a training on images stands and what ends it: the same rules, however its steps are run."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from layersearch.spaces.tasks import course

if TYPE_CHECKING:  # tests/bench/gpu.py runs where safetensors is not
    from layersearch.spaces.tasks.images.checkpoint import Progress

__all__ = ["RECENT", "ImageCourse", "OnStep", "TrainResult"]

RECENT = 10  # batches in the running training accuracy

OnStep: TypeAlias = Callable[[int, float, float], str | None]
"""``(steps done, loss, running training accuracy) -> reason to stop, or None``."""


@dataclass(frozen=True)
class TrainResult(course.TrainResult):
    """How a training ended; ``stopped`` by ``on_step``. Losses are mean cross-entropies of the batches, in nats.

    Args:
        accuracy: fraction of right answers in the last 10 training batches, earlier calls included.
        progress: where the training stands, as in its checkpoint; stays true when the model is changed.
        graph_failure: why the steps could not be captured as a CUDA graph and were run one by one; empty if they were
            captured, or were not to be.
    """

    accuracy: float
    progress: "Progress"
    graph_failure: str = field(default="", compare=False)


class ImageCourse(course.Course):
    """Counts the steps of one call of ``ClassifierTask.train``.

    Args:
        step, until_step, deadline: as of ``Course``.
        recent: accuracies of the last steps done before.
        on_step: asked after each step, in order; only looks on.
        changes: called after that many steps; each may put other modules into the model, with the same parameters.
    """

    def __init__(
        self,
        step: int,
        recent: Iterable[float],
        until_step: int,
        deadline: float | None = None,
        on_step: OnStep | None = None,
        changes: Mapping[int, Callable[[], None]] | None = None,
    ) -> None:
        super().__init__(step, until_step, deadline)
        self.recent: deque[float] = deque(recent, maxlen=RECENT)
        self._on_step, self._changes = on_step, changes or {}

    @property
    def accuracy(self) -> float:
        """Running training accuracy; 0 before the first step."""
        return sum(self.recent) / len(self.recent) if self.recent else 0.0

    def steps_ahead(self, step: int) -> int:
        """From ``step`` on to the goal, or to the next change of the model if that is sooner."""
        ends = [self.until_step, *(change for change in self._changes if change > step)]
        return min(ends) - step

    def takes(self, loss: float, right: float) -> bool:
        """Counts a step with its fraction of right answers. False if it was the last one wanted."""
        self.count(loss)
        self.recent.append(right)
        if self._on_step is not None and (why := self._on_step(self.step, loss, self.accuracy)):
            self.end("stopped", why)
            return False
        if self.step in self._changes:
            self._changes[self.step]()
        return True

"""Where a training stands and what ends it: the same rules, however its steps are run."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["RECENT", "Course", "OnStep", "Status", "TrainResult"]

RECENT = 10  # batches in the running training accuracy

Status = Literal["ok", "nonfinite", "timeout", "stopped"]
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
        graph_failure: why the steps could not be captured as a CUDA graph and were run one by one; empty if they were
            captured, or were not to be.
    """

    steps: int
    status: Status
    reason: str
    losses: tuple[float, ...]
    accuracy: float
    _capture: Callable[[], bytes] = field(repr=False, compare=False)
    graph_failure: str = field(default="", compare=False)

    def checkpoint(self) -> bytes:
        """The state to continue from; to be taken before the model is trained on or changed."""
        return self._capture()


class Course:
    """Counts the steps of one call of ``ImageTask.train``.

    Args:
        step, recent: steps done before, and the accuracies of the last of them.
        until_step: goal.
        deadline: on the clock of ``time.monotonic``, seconds.
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
        self.step = step
        self.recent: deque[float] = deque(recent, maxlen=RECENT)
        self.until_step = until_step
        self.losses: list[float] = []
        self.status: Status = "ok"
        self.reason = ""
        self._deadline, self._on_step, self._changes = deadline, on_step, changes or {}

    @property
    def accuracy(self) -> float:
        """Running training accuracy; 0 before the first step."""
        return sum(self.recent) / len(self.recent) if self.recent else 0.0

    def goes_on(self) -> bool:
        """Whether there is another step to run now. Looks at the clock."""
        if self.status != "ok" or self.step >= self.until_step:
            return False
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._end("timeout", f"the time limit was reached after {self.step} steps")
            return False
        return True

    def steps_ahead(self, step: int) -> int:
        """From ``step`` on to the goal, or to the next change of the model if that is sooner."""
        ends = [self.until_step, *(change for change in self._changes if change > step)]
        return min(ends) - step

    def accepts(self, loss: float) -> bool:
        """To be asked before a step is counted: a loss that is not finite ends the training without that step."""
        if math.isfinite(loss):
            return True
        self._end("nonfinite", f"the loss is not finite at step {self.step + 1}")
        return False

    def count(self, loss: float, right: float) -> bool:
        """Takes in a step that was done, with its fraction of right answers. False if it was the last one wanted."""
        self.step += 1
        self.losses.append(loss)
        self.recent.append(right)
        if self._on_step is not None and (why := self._on_step(self.step, loss, self.accuracy)):
            self._end("stopped", why)
            return False
        if self.step in self._changes:
            self._changes[self.step]()
        return True

    def _end(self, status: Status, reason: str) -> None:
        self.status, self.reason = status, reason

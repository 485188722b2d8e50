"""Where a training stands, what ends it, and how it ended: the same rules, whatever it learns from."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Course", "Status", "TrainResult"]

Status: TypeAlias = Literal["ok", "nonfinite", "timeout", "stopped"]


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Args:
        steps: steps done since the very beginning.
        status: ``ok`` reached its goal; ``nonfinite`` met a loss that is not finite; ``timeout`` passed the deadline;
            ``stopped`` was ended by who looked on.
        reason: one sentence unless ``ok``.
        losses: of each step of this call, in the unit that the task says.
    """

    steps: int
    status: Status
    reason: str
    losses: tuple[float, ...]
    _capture: Callable[[], bytes] = field(repr=False, compare=False)

    def checkpoint(self) -> bytes:
        """The state to continue from; to be taken before the model is trained on or changed."""
        return self._capture()


class Course:
    """Counts the steps of one call of a task's ``train``.

    Args:
        step: steps done before.
        until_step: goal.
        deadline: on the clock of ``time.monotonic``, seconds.
    """

    def __init__(self, step: int, until_step: int, deadline: float | None = None) -> None:
        self.step = step
        self.until_step = until_step
        self.losses: list[float] = []
        self.status: Status = "ok"
        self.reason = ""
        self._deadline = deadline

    def goes_on(self) -> bool:
        """Whether there is another step to run now. Looks at the clock."""
        if self.status != "ok" or self.step >= self.until_step:
            return False
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.end("timeout", f"the time limit was reached after {self.step} steps")
            return False
        return True

    def accepts(self, loss: float) -> bool:
        """To be asked before a step is counted: a loss that is not finite ends the training without that step."""
        if math.isfinite(loss):
            return True
        self.end("nonfinite", f"the loss is not finite at step {self.step + 1}")
        return False

    def count(self, loss: float) -> None:
        """Takes in a step that was done."""
        self.step += 1
        self.losses.append(loss)

    def end(self, status: Status, reason: str) -> None:
        """No step is wanted any more."""
        self.status, self.reason = status, reason

"""How the stages of evaluators end before their measurement, and how long they may take: the same in every space."""

import time
from collections.abc import Callable
from typing import Protocol

from layersearch.errors import LayerSearchError
from layersearch.spaces.contracts import Outcome

__all__ = ["SAVE_EVERY_S", "Ended", "EndedError", "allowed_seconds", "check_finished", "failed", "settled", "sooner"]

SAVE_EVERY_S = 60.0
"""Of a long stage: so much of it may be lost with its worker."""

_LIMIT_FACTOR = 10
_SMALLEST_LIMIT_S = 30.0


class EndedError(Exception):
    """A stage is over before its measurement: ``outcome`` says how."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Ended(Protocol):
    """What a task says of a training."""

    @property
    def status(self) -> str: ...

    @property
    def steps(self) -> int: ...


def check_finished(result: Ended) -> None:
    """Raises: EndedError for a training that did not reach its goal."""
    if result.status == "timeout":
        raise EndedError(Outcome("failed", "the time limit was reached", measured=float(result.steps)))
    if result.status == "nonfinite":
        raise EndedError(Outcome("rejected", "loss is not finite", measured=float(result.steps + 1)))


def settled(stage: Callable[[float | None], Outcome], time_limit_s: float | None) -> Outcome:
    """The outcome of ``stage(deadline)``, a time of ``time.monotonic``. An exception of the candidate fails it."""
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    try:
        return stage(deadline)
    except EndedError as ended:
        return ended.outcome
    except (LayerSearchError, RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
        return failed(error)


def failed(error: Exception) -> Outcome:
    """The outcome of a stage in which the candidate raised ``error``."""
    return Outcome("failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def allowed_seconds(seconds: float) -> float:
    """Time limit of a stage that takes ``seconds`` with the reference: ten times that, at least 30 s."""
    return max(_SMALLEST_LIMIT_S, _LIMIT_FACTOR * seconds)


def sooner(deadline: float | None, pause_s: float | None) -> float | None:
    """``deadline``, or the end of a pause that begins now if that comes first; times of ``time.monotonic``."""
    if pause_s is None:
        return deadline
    pause = time.monotonic() + pause_s
    return pause if deadline is None else min(deadline, pause)

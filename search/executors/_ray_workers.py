"""What the runner knows of one Ray worker: what it was given, since when, and until when it may take."""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from layersearch.search.executors._ray_actor import SAVES, Answer, Ready, Saved
from layersearch.search.executors.base import allowed_seconds, ending_seconds
from layersearch.spaces.contracts import Job

__all__ = ["Call", "Estimates", "Item", "Worker"]

_MOST_CALLS = 4
_DYING_S = 10.0
_AHEAD_S = 0.25
"""A worker gets its next call this long before it is expected to be done: longer than any round trip."""
_BATCH_S = 0.15
"""Of work per call: a call costs the cluster some 0.3 ms, so that cheap stages pay 0.2 %."""
_PIPELINE_S = 0.5
_MOST_IN_FLIGHT = 512


@dataclass(frozen=True)
class Item:
    """A job on its way.

    Args:
        alone: it needs the memory of a machine to itself.
        lost_on, lost_at: the node of a lost try, and when it was lost.
    """

    job: Job
    alone: bool = False
    lost_on: str | None = None
    lost_at: float = 0.0

    def may_run_on(self, node: str, now: float) -> bool:
        """Not where it was lost a moment ago: a node takes its workers with it one after the other, and a job that is
        sent from the first to the next would lose both its tries."""
        return node != self.lost_on or now - self.lost_at > _DYING_S


class Estimates:
    """Seconds that a job of a stage takes, from those that came back."""

    def __init__(self) -> None:
        self._by_stage: dict[str, float] = {}
        self._mean: float | None = None

    def add(self, stage: str, seconds: float) -> None:
        old = self._by_stage.get(stage, seconds)
        self._by_stage[stage] = old + 0.3 * (seconds - old)
        self._mean = seconds if self._mean is None else self._mean + 0.1 * (seconds - self._mean)

    def seconds(self, stage: str) -> float:
        """Infinite for a stage that was never run."""
        return self._by_stage.get(stage, float("inf"))

    def in_flight(self) -> int:
        """Jobs per worker that keep it busy: two, or as many cheap ones as fill its pipeline."""
        if self._mean is None:
            return 2
        return max(2, min(_MOST_IN_FLIGHT, round(_PIPELINE_S / max(self._mean, 1e-6))))

    def batch(self, waiting: deque[Item], most: int) -> list[Item]:
        """Takes up to ``most`` items for one call: one of a long stage, several of cheap ones."""
        items = [waiting.popleft()]
        seconds = self.seconds(items[0].job.stage)
        while waiting and len(items) < most:
            seconds += self.seconds(waiting[0].job.stage)
            if seconds > _BATCH_S:
                break
            items.append(waiting.popleft())
        return items


@dataclass(frozen=True)
class Call:
    """Items that were sent together.

    Args:
        seconds: that they are expected to take.
        limit_s: time limit of the longest; ``None`` if one of them may take forever.
    """

    number: int
    items: Sequence[Item]
    future: "Future[list[Answer]]"
    seconds: float
    limit_s: float | None


class Worker:
    """An actor, and its calls in the order they run. ``ready`` is ``None`` until it has its evaluator; ``asked`` is the
    question for what it has saved."""

    _numbers = itertools.count()

    def __init__(self, actor: Any, now: float) -> None:
        self.number = next(self._numbers)
        self.actor = actor
        self.born = now
        self.ready: Ready | None = None
        self.calls: deque[Call] = deque()
        self.head_since = now
        self.ended = False
        self.spent = False
        self.asked: Future[Saved] | None = None
        self._saved: Saved | None = None

    def ask_saved(self) -> "Future[Saved]":
        """Asks for what it saves next; at most one question is open at a time."""
        after = 0 if self._saved is None else self._saved.number
        self.asked = self.actor.saved.options(concurrency_group=SAVES).remote(after).future()
        return self.asked

    def saved(self) -> Saved | None:
        """The latest that came back: of the stage that runs, or of an earlier one."""
        if self.asked is not None and self.asked.done() and self.asked.exception() is None:
            self._saved = self.asked.result()
        return self._saved

    def send(self, items: Sequence[Item], estimates: Estimates, now: float) -> Call:
        """Sends a call. One that fails at once is answered by its future, as any other."""
        method: Callable[..., Any] = self.actor.run_alone.remote if items[0].alone else self.actor.run.remote
        seconds = sum(estimates.seconds(item.job.stage) for item in items)
        future = method([item.job for item in items]).future()
        call = Call(next(self._numbers), items, future, seconds, self._limit_s(items))
        if not self.calls:
            self.head_since = now
        self.calls.append(call)
        return call

    def pop(self, now: float) -> Call:
        """The call that has run."""
        self.head_since = now
        return self.calls.popleft()

    def wants_at(self, now: float) -> float:
        """When it should get its next call; ``now`` or earlier if at once, infinite if that is not known."""
        if self.ended or self.spent or self.ready is None or len(self.calls) >= _MOST_CALLS:
            return float("inf")
        if not self.calls:
            return now
        if self.calls[-1].items[0].job.attempt > 0:
            return float("inf")
        return self.head_since + sum(call.seconds for call in self.calls) - _AHEAD_S

    def kill_at(self) -> float:
        """When the call that runs has taken too long."""
        call = self.calls[0] if self.calls else None
        if call is None or call.limit_s is None:
            return float("inf")
        others = call.seconds if len(call.items) > 1 else 0.0  # a batch of known stages, within _BATCH_S
        return self.head_since + ending_seconds(call.limit_s) + others

    def _limit_s(self, items: Sequence[Item]) -> float | None:
        assert self.ready is not None, "only a ready worker gets a job"
        limits = [allowed_seconds(self.ready.limits, item.job) for item in items]
        known = [limit for limit in limits if limit is not None]
        return max(known) if len(known) == len(limits) else None

"""Trains by replaying one captured step, since the steps of a small network on a GPU cost little but their launches.

The captured step takes its batch and learning rate from tables on the device, at the place of a counter there, and
leaves loss and right answers in another. The host fills and reads the tables every few steps; when what it reads ends
the training, the steps after that are taken back: results are those of steps run one by one.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from layersearch.spaces.tasks.images.course import ImageCourse
from layersearch.spaces.tasks.images.cuda_graph import StepGraph, beside_default
from layersearch.spaces.tasks.images.step import TrainingStep

__all__ = ["LEAST_GRAPHED", "MOST_AHEAD", "Feed", "run_graphed"]

LEAST_GRAPHED = 8
"""Steps of a training below which a capture, which costs about three, is not worth it."""

MOST_AHEAD = 32
"""Steps between two looks at their losses. The first looks come after 1, 2, 4, … steps: most failures are early."""

_WARM_UP = 2


@dataclass(frozen=True)
class Feed:
    """What steps are fed with.

    Args:
        draw: of a step (from 0): int64 ``[4, B]`` on the host, what is random about its batch.
        batch: from a draw on the device: images and labels; waits for nothing.
        rate: learning rate of a step.
        batch_size: B.
    """

    draw: Callable[[int], Tensor]
    batch: Callable[[Tensor], tuple[Tensor, Tensor]]
    rate: Callable[[int], float]
    batch_size: int


def run_graphed(
    course: ImageCourse, step: TrainingStep, feed: Feed, device: torch.device, make_graph: Callable[[], StepGraph]
) -> str:
    """Runs ``course`` to its end. Captures once, and again after each change of the model.

    Returns: why a capture failed, with the training where it was before; empty if none did.
    """
    with beside_default(device):
        while course.goes_on():
            graph, first = make_graph(), course.step
            with closing(graph), closing(_ReplayedStep(step, feed, device)) as replayed:
                try:
                    replayed.capture(graph, first)
                except RuntimeError as error:
                    replayed.forget()
                    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                _run_until_change(course, replayed)
                if course.step == first:
                    replayed.forget()
    return ""


def _run_until_change(course: ImageCourse, replayed: "_ReplayedStep") -> None:
    ahead = 1
    n = min(ahead, course.steps_ahead(course.step))
    tables = replayed.tables(course.step, n)
    while course.goes_on():
        replayed.start(tables, n)
        n_done, ahead = n, min(2 * ahead, MOST_AHEAD)
        left = course.steps_ahead(course.step) - n_done
        n = min(ahead, left)
        if n > 0:
            tables = replayed.tables(course.step + n_done, n)  # while the device works
        for i, (loss, n_right) in enumerate(replayed.read(n_done)):
            if not course.accepts(loss):
                replayed.go_back(i, look=True)
                return
            if not course.takes(loss, n_right / replayed.batch_size):
                replayed.go_back(i + 1, look=False)
                return
        if n <= 0:
            return


class _ReplayedStep:
    """The step with its tables.

    Args:
        step: gets its momentum, if it has none yet, when it is captured.
    """

    def __init__(self, step: TrainingStep, feed: Feed, device: torch.device) -> None:
        self.batch_size = feed.batch_size
        self._step, self._feed = step, feed
        self._draws = torch.zeros(MOST_AHEAD, 4, feed.batch_size, dtype=torch.int64, device=device)
        self._rates = torch.zeros(MOST_AHEAD, dtype=torch.float64, device=device)
        self._seen = torch.zeros(MOST_AHEAD, 2, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._momentum_before: list[Tensor] = []
        self._live: list[Tensor] = []
        self._saved: list[Tensor] = []
        self._graph: StepGraph | None = None

    def capture(self, graph: StepGraph, first: int) -> None:
        """Raises: RuntimeError if it cannot be captured; the training is then where it was."""
        before = self._step.state()
        self._momentum_before = self._step.momentum()
        copies = [tensor.clone() for tensor in before]
        self._fill(self.tables(first, 1))
        try:
            graph.capture(self._run, self._warm_up)
        finally:
            torch._foreach_copy_(before, copies)
            self._step.clear_momentum(but=self._momentum_before)
        self._graph = graph
        self._live = self._step.state()
        self._saved = [tensor.clone() for tensor in self._live]

    def forget(self) -> None:
        """Takes away the momentum that capturing has made: no step was done with it."""
        self._step.forget_momentum(but=self._momentum_before)

    def tables(self, first: int, n: int) -> tuple[Tensor, Tensor]:
        """Draws and learning rates of ``n`` steps from step ``first`` on, on the host."""
        draws = torch.stack([self._feed.draw(step) for step in range(first, first + n)])
        rates = [self._feed.rate(step) for step in range(first, first + n)]
        return draws, torch.tensor(rates, dtype=torch.float64)

    def start(self, tables: tuple[Tensor, Tensor], n: int) -> None:
        """Launches the ``n`` steps of ``tables``."""
        assert self._graph is not None, "a step is captured before it is started"
        self._fill(tables)
        torch._foreach_copy_(self._saved, self._live)
        self._graph.replay(n)

    def read(self, n: int) -> list[list[float]]:
        """Loss and number of right answers of each of the last ``n`` steps; waits for them."""
        found: list[list[float]] = self._seen[:n].tolist()
        return found

    def go_back(self, n: int, look: bool) -> None:
        """To where the first ``n`` steps since the last start led; with ``look``, looks at the batch after them."""
        assert self._graph is not None, "what goes back was started"
        torch._foreach_copy_(self._live, self._saved)
        self._place.zero_()
        self._graph.replay(n)
        if look:
            self._step.look(*self._feed.batch(self._draws[n]))

    def close(self) -> None:
        """Lets go of the gradients, which lie in the memory of the graph."""
        self._step.optimizer.zero_grad(set_to_none=True)

    def _fill(self, tables: tuple[Tensor, Tensor]) -> None:
        for table, values in zip((self._draws, self._rates), tables, strict=True):
            table[: len(values)].copy_(values)
        self._place.zero_()

    def _warm_up(self) -> None:
        for _ in range(_WARM_UP):
            self._run()

    def _run(self) -> None:
        """One step, at the place of the counter."""
        x, y = self._feed.batch(self._draws.index_select(0, self._place)[0])
        seen = self._step.look(x, y)
        self._step.learn(self._rates.index_select(0, self._place)[0])
        self._seen.index_copy_(0, self._place, seen[None])
        self._place.add_(1)

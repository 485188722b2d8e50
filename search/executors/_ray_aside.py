"""Calls that wait for the head of a Ray cluster, out of the way of the loop that takes in results.

A head that is gone lets every such call hang, until Ray ends the process after a minute. Workers need no head to go on.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Aside"]

Result = TypeVar("Result")


class Aside:
    """Makes calls in their order, in a thread that the end of this process does not wait for."""

    def __init__(self) -> None:
        self.ended = False
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="ray-head", daemon=True).start()

    def call(self, function: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        self._calls.put((future, function))
        return future

    def end(self) -> None:
        """After the calls that are waiting; there may be no more of them."""
        self.ended = True
        self._calls.put(None)

    def _work(self) -> None:
        while (made := self._calls.get()) is not None:
            future, function = made
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

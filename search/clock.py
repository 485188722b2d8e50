"""Measures how long the search has run."""

import time

__all__ = ["Clock"]


class Clock:
    """Seconds of the search, summed over resumes; stands still until ``start``."""

    def __init__(self, before_s: float) -> None:
        self._before_s = before_s
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.monotonic()

    def stop(self) -> None:
        self._before_s, self._since = self.elapsed_s(), None

    def elapsed_s(self) -> float:
        return self._before_s + (0.0 if self._since is None else time.monotonic() - self._since)

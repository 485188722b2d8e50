"""The evonorm space with a log of every job that is begun, and the command line on it."""

import os
import sys
from pathlib import Path

from layersearch.search.cli import main
from layersearch.search.executors.base import trust
from layersearch.spaces.catalog import SPACES, Budget, SpaceEntry
from layersearch.spaces.contracts import Arrays, Evaluator, Job, JsonObject, Outcome
from layersearch.spaces.evonorm.evaluate import EvonormEvaluator
from layersearch.spaces.evonorm.settings import parse
from layersearch.spaces.evonorm.space import EvonormSpace

__all__ = ["LOG", "LoggedEvonorm", "from_settings"]

LOG = "LOGGED_EVONORM"
"""Variable that names the log: one line ``candidate stage`` per job."""

trust("logged_evonorm")


class LoggedEvonorm(EvonormSpace):
    """As evonorm, but it says what it does."""

    def evaluator(self, data: Arrays, device: str) -> Evaluator:
        return _Logged(self.settings, data, device)


class _Logged(EvonormEvaluator):
    def run(self, job: Job, time_limit_s: float | None = None) -> Outcome:
        if log := os.environ.get(LOG):
            with Path(log).open("a") as file:
                file.write(f"{job.candidate} {job.stage}\n")
        return super().run(job, time_limit_s)


def from_settings(settings: JsonObject) -> LoggedEvonorm:
    return LoggedEvonorm(parse(settings))


if "logged" not in SPACES:
    SPACES.add(
        "logged",
        SpaceEntry(
            name="logged",
            summary="evonorm",
            entry="logged_evonorm:from_settings",
            settings="layersearch.spaces.evonorm.settings:effective",
            presets={"smoke": Budget(evaluations=8, population=8, rerank_top=2)},
            series=("b", "s"),
            rungs="fidelity.ratio",
        ),
    )

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

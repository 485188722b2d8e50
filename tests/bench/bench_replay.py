"""How long a run of ``search tune`` takes to be resumed: recorded suggestions are put back into the study one by one,
and 64 slots, evenly spread, are worked out again.

The record is made up: random suggestions of evonorm with three objectives, of which one in six is evaluated. What it
costs to put it back does not depend on how it came about; what it costs to work a slot out again is measured at 64
sizes of the study.

python tests/bench/bench_replay.py [TRIALS …]
"""

import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from common import core_seconds, environment, table

from layersearch.primitives.seeds import Seeds
from layersearch.search.asking import CHECKED_SLOTS
from layersearch.search.drivers._optuna import OptunaDriver
from layersearch.search.drivers.base import Told
from layersearch.search.trials import UniformTrial
from layersearch.spaces.contracts import TunableSpace
from layersearch.spaces.evonorm.settings import effective
from layersearch.spaces.evonorm.space import from_settings

__all__: list[str] = []

SAMPLERS = ("random", "nsga2", "tpe")
LOOKAHEAD = 8


def record(space: TunableSpace, n: int) -> Iterator[Told]:
    rng = random.Random(0)
    for number in range(n):
        genome = space.suggest(UniformTrial(rng))
        if rng.random() < 1 / 6:
            fitness = {o.name: rng.random() for o in space.objectives}
            yield Told(number, number, "evaluated", fitness, lambda g=genome: g, len(space.stages))  # type: ignore[misc]
        else:
            yield Told(number, number, "rejected", {}, lambda g=genome: g, rng.randrange(3))  # type: ignore[misc]


@dataclass
class Replay:
    """A driver that is told a record, as a resume would."""

    driver: OptunaDriver
    waiting: list[Told] = field(default_factory=list)

    def put_back(self, told: Told) -> None:
        if len(self.waiting) == LOOKAHEAD:
            self.driver.tell(self.waiting.pop(0))
        self.driver.recall(told.slot, Seeds(0).stream("driver", told.slot), [told], check=False)
        self.waiting.append(told)

    def work_out(self, slot: int) -> None:
        next(self.driver.ask(1_000_000 + slot, random.Random(slot)))


def measured(space: TunableSpace, name: str, n: int) -> dict[str, float]:
    replay = Replay(OptunaDriver(space, 1, name))
    put_back, work_out, seen = 0.0, [], record(space, n)
    while chunk := list(islice(seen, max(1, n // CHECKED_SLOTS))):
        put_back += core_seconds(lambda chunk=chunk: [replay.put_back(told) for told in chunk])  # type: ignore[misc]
        work_out.append(core_seconds(lambda slot=chunk[-1].slot: replay.work_out(slot)))  # type: ignore[misc]
    each = statistics.fmean(work_out)
    return {
        "put back, s": put_back,
        f"{CHECKED_SLOTS} checked, s": each * CHECKED_SLOTS,
        "resume, s": put_back + each * CHECKED_SLOTS,
        "all checked, s": each * n,
        "last check, ms": 1000 * work_out[-1],
    }


def main() -> None:
    sizes = [int(n) for n in sys.argv[1:]] or [1000, 5000]
    space = from_settings(effective("b", "digits", None, "smoke", seed_layers=[]))
    print(environment("optuna"))
    for n in sizes:
        table(f"{n} trials, core-seconds", {name: measured(space, name, n) for name in SAMPLERS})


if __name__ == "__main__":
    main()

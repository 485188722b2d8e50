"""Puts the toy space on the list of spaces, and runs the command line on it."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import toy_space  # trusts itself

from layersearch.errors import DataError, RecipeError
from layersearch.search.cli import main
from layersearch.spaces.catalog import SPACES, Budget, SpaceEntry
from layersearch.spaces.contracts import JsonObject

__all__ = ["effective", "toy_cli"]

DATA = ("bad", "good")
KNOBS = (
    "size", "sleep_s", "tricks", "broken", "log", "reject_every", "objectives", "choices", "ratio", "costs", "uneven",
    "lowering.swap_step",
)  # fmt: skip
ENTRY = SpaceEntry(
    name="toy",
    summary="whole numbers",
    entry="toy_space:from_settings",
    settings="toy_catalog:effective",
    presets={"smoke": Budget(12, 8, 2), "small": Budget(60, 16, 5)},
    data_sets="toy_catalog:DATA",
    load="toy_catalog:load",
    plan="toy_catalog:planned",
    calibration="toy_catalog",
    rungs="ratio",
    objectives="costs",
    preload=(),
)
if "toy" not in SPACES:
    SPACES.add("toy", ENTRY)


def effective(
    series: str | None,
    data: str,
    data_dir: str | None,
    preset: str,
    overrides: Mapping[str, Any],
    seed_layers: Sequence[str] | None,
    lowering: str,
) -> JsonObject:
    assert toy_space.ToySpace.name == ENTRY.name
    for key in overrides:
        if key not in KNOBS:
            raise RecipeError(f"unknown setting '{key}'")
    return dict(overrides) if lowering == "auto" else {**overrides, "lowering": {"name": lowering}}


def planned(settings: JsonObject, data: object, device: str) -> JsonObject:
    return settings | {"lowering": {"name": "torch", "swap_step": 3}}


def load(name: str, data_dir: Path | None) -> None:
    if name == "bad":
        raise DataError(f"'{name}' must be in {data_dir}; put it there")


def calibrate(settings: JsonObject, seeds: int, progress: Callable[[str], None]) -> list[JsonObject]:
    progress("ten: passes every stage")
    size = settings.get("size", 1000)
    passed = seeds if size == 1000 else 0
    worst = 0.3 if passed else math.inf
    return [{"layer": "ten", "stage": "quality", "passed": passed, "seeds": seeds, "worst": worst, "limit": 0.2}]


def verdict(rows: list[JsonObject]) -> list[str]:
    return [f"{row['layer']} must pass {row['stage']}" for row in rows if row["passed"] < row["seeds"]]


def recorded() -> list[JsonObject]:
    return [{"preset": "smoke", "data": "good", "rows": calibrate({}, 5, str)}]


def toy_cli(*arguments: str) -> int:
    return main([str(argument) for argument in arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

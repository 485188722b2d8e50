"""Puts the toy space on the list of spaces, and runs the command line on it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import toy_space  # trusts itself

from layersearch.errors import RecipeError
from layersearch.search.cli import main
from layersearch.spaces.catalog import SPACES, Budget, SpaceEntry
from layersearch.spaces.contracts import JsonObject

__all__ = ["effective", "toy_cli"]

ENTRY = SpaceEntry(
    name="toy",
    summary="whole numbers",
    entry="toy_space:from_settings",
    settings="toy_catalog:effective",
    presets={"smoke": Budget(12, 8, 2), "small": Budget(60, 16, 5)},
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
) -> JsonObject:
    assert toy_space.ToySpace.name == ENTRY.name
    for key in overrides:
        if key not in ("size", "sleep_s", "tricks", "broken", "log", "reject_every"):
            raise RecipeError(f"unknown setting '{key}'")
    return dict(overrides)


def toy_cli(*arguments: str) -> int:
    return main([str(argument) for argument in arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

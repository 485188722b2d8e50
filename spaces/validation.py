"""pydantic's errors as one sentence: rule, value, remedy."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from layersearch.errors import RecipeError
from layersearch.primitives.registry import unknown_name

__all__ = ["override", "sentence"]


def override(settings: dict[str, Any], parts: Sequence[str], changes: Mapping[str, Any] | None) -> None:
    """Puts values by dotted key, ``{"task.batch": 64}``, into ``settings``.

    Args:
        parts: of the settings that may be changed.
    Raises: RecipeError with one sentence for an unknown key, or a number that is not finite.
    """
    known = [f"{part}.{key}" for part in parts for key in settings[part]]
    for key, value in (changes or {}).items():
        if key not in known:
            raise RecipeError(str(unknown_name("setting", key, known)))
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{key} must be finite, got {value}; give a number")
        part, name = key.split(".", 1)
        settings[part][name] = value


def sentence(error: ValidationError, known: list[str], kind: str = "setting") -> str:
    """The first fault of ``error``.

    Args:
        error: what pydantic raised.
        known: names that are allowed at the top level, for an unknown one.
        kind: what a name is called.
    """
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{first['ctx']['error']}; correct the {kind}"
    if first["type"] == "extra_forbidden":
        return str(unknown_name(kind, name, sorted(known)))
    if first["type"] == "missing":
        return f"{kind} '{name}' must be given, got nothing; add it"
    rule = re.sub(r" or instance of \w+", "", first["msg"].replace("Input should be", "must be"))
    return f"{kind} '{name}' {rule}, got {first['input']!r:.60}; correct it"

"""pydantic's errors as one sentence: rule, value, remedy."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from layersearch.errors import RecipeError
from layersearch.primitives.registry import unknown_name

__all__ = ["all_known", "checked", "override", "sentence", "torch_alone"]

Model = TypeVar("Model", bound=BaseModel)

_TORCH = ("auto", "torch")


def checked(model: type[Model], settings: Mapping[str, Any]) -> Model:
    """Settings from plain data. Raises: RecipeError with one sentence."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(sentence(error, list(model.model_fields))) from None


def all_known(kind: str, names: tuple[str, ...], known: Sequence[str]) -> tuple[str, ...]:
    """``names``, for a validator. Raises: ValueError with one sentence for the first that is not ``known``."""
    for name in names:
        if name not in known:
            raise ValueError(str(unknown_name(kind, name, list(known))))
    return names


def torch_alone(space: str, series: str | None, lowering: str) -> None:
    """For a space without series that torch runs. Raises: RecipeError with one sentence."""
    if series is not None:
        raise RecipeError(f"series must be left out, the space {space} has none, got '{series}'; remove --series")
    if lowering not in _TORCH:
        raise RecipeError(str(unknown_name(f"lowering of the space {space}", lowering, list(_TORCH))))


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

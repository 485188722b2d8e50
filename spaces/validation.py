"""What settings of all spaces share: strictness, checks of names, and pydantic's errors as one sentence."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from layersearch.errors import RecipeError
from layersearch.primitives.registry import unknown_name

__all__ = ["RunSettings", "Settings", "all_known", "checked", "override", "sentence", "torch_alone"]

Model = TypeVar("Model", bound=BaseModel)

_LOWERINGS = ("auto", "torch")


class Settings(BaseModel):
    """Settings that do not change; unknown names, and numbers that are not finite, are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunSettings(Settings):
    """What the settings of a run begin with: names of designs to start from, and the folder of the data sets."""

    seed_layers: tuple[str, ...]
    data_dir: str | None = None

    @property
    def data_path(self) -> Path | None:
        return None if self.data_dir is None else Path(self.data_dir)


def checked(model: type[Model], settings: Mapping[str, Any]) -> Model:
    """Settings from plain data. Raises: RecipeError with one sentence."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(sentence(error, list(model.model_fields))) from None


def all_known(names: Sequence[str], what: str, known: Sequence[str]) -> tuple[str, ...]:
    """``names``. Raises: ValueError in one sentence for the first that is not among ``known``."""
    for name in names:
        if name not in known:
            raise ValueError(str(unknown_name(what, name, list(known))))
    return tuple(names)


def torch_alone(space: str, series: str | None, lowering: str) -> None:
    """Of a space without series that runs by torch. Raises: RecipeError for any other wish."""
    if series is not None:
        raise RecipeError(f"series must be left out, the space {space} has none, got '{series}'; remove --series")
    if lowering not in _LOWERINGS:
        raise RecipeError(str(unknown_name(f"lowering of the space {space}", lowering, list(_LOWERINGS))))


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

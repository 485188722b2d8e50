"""YAML that a stranger may have written: plain values only, each key once, no references, within limits of size."""

import re
from pathlib import Path
from typing import Any

import yaml

from layersearch.errors import RecipeError

__all__ = ["MAX_BYTES", "load_file", "load_text"]

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8


def _fault(what: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, what, where.start_mark)


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2: ``1e-3`` is a number, ``010``, ``1:30`` and ``yes`` are texts."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as in the parent)
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _fault("a reference (*name)", event)
        if getattr(event, "tag", None) is not None:
            raise _fault(f"a tag ({event.tag})", event)
        if self._depth >= MAX_DEPTH:
            raise _fault(f"more than {MAX_DEPTH} levels", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault("a key that is no text", key)
            if key.value in seen:
                raise _fault(f"the key '{key.value}' twice", key)
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,18})", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def load_text(text: str, source: str) -> Any:
    """The value of a YAML document. Raises: RecipeError with one sentence that names ``source`` and the line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}" if mark is not None else "something"
        raise RecipeError(
            f"{source} must be plain YAML, and {where} is not ({_one_line(error.problem)}); correct it"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise RecipeError(f"{source} must be plain YAML, and is not ({_one_line(reason)}); correct it") from None


def load_file(path: Path) -> dict[str, Any]:
    """The mapping in a recipe file. Raises: RecipeError with one sentence."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"the recipe must be a readable file, but {path} is not ({reason}); check --recipe") from None
    if len(content) > MAX_BYTES:
        raise RecipeError(f"a recipe must have at most {MAX_BYTES} bytes, and {path} has more; shorten it")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"a recipe must be text in UTF-8, and {path} is not; save it as such") from None
    value = load_text(text, f"the recipe {path}")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError(
            f"a recipe must be a mapping of options, 'option: value', got {type(value).__name__} in {path}; see "
            "runs/recipes"
        )
    return value


def _one_line(problem: object) -> str:
    return " ".join(str(problem or "something else").split())[:200]
